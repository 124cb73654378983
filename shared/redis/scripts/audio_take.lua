-- Gives the holder of a generation the next chunks of its audio input, and notes what it has read.
-- KEYS[1] meta  [2] audio
-- ARGV[1] the holder's token  [2] seq of the last chunk that it has taken  [3] bytes that it has read,
--     from the start of the input  [4] chunks max
-- Returns {'ok', chunk, …}, each chunk {seq, bytes, '1' if last} | {'fenced'}
-- The bytes read never fall: a worker that reads again from the start closes no window of the client.
local f = redis.call('HMGET', KEYS[1], 'token', 'audio_read')
if not f[1] or f[1] ~= ARGV[1] then return {'fenced'} end
if tonumber(ARGV[3]) > tonumber(f[2] or '0') then
  redis.call('HSET', KEYS[1], 'audio_read', ARGV[3])
end
local after = string.format('%.0f', tonumber(ARGV[2]) + 1) .. '-0'
local reply = {'ok'}
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], after, '+', 'COUNT', ARGV[4])) do
  reply[#reply + 1] = {string.match(entry[1], '%d+'), entry[2][2], entry[2][6]}
end
return reply
