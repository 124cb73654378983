-- Reads how far the audio input of a generation has got.
-- KEYS[1] meta  [2] audio
-- ARGV[1] the caller
-- Returns {'ok', next seq, bytes in all, bytes read, '1' if complete, status, media type}
--     | {'absent'} | {'none'}
local f = redis.call('HMGET', KEYS[1], 'status', 'audio', 'audio_read', 'owner')
if not f[1] or f[1] == 'sealed' or f[4] ~= ARGV[1] then return {'absent'} end
if not f[2] then return {'none'} end
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if not newest then return {'ok', '1', '0', f[3] or '0', '', f[1], f[2]} end
local top = tonumber(string.match(newest[1], '%d+'))
return {
  'ok', string.format('%.0f', top + 1), newest[2][4], f[3] or '0', newest[2][6], f[1], f[2],
}
