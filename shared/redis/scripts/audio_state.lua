-- Reads how far the audio input of a generation has got, also after its end.
-- KEYS[1] meta  [2] audio  [3] log
-- ARGV[1] the caller
-- Returns {'ok', next seq, bytes in all, bytes read, '1' if complete, status, media type}
--     | {'absent'} | {'none'} | {'expired'}: the generation has ended, and its log is gone
local f = redis.call('HMGET', KEYS[1], 'status', 'audio', 'audio_read', 'owner', 'audio_end')
if not f[1] or f[1] == 'sealed' or f[4] ~= ARGV[1] then return {'absent'} end
if not f[2] then return {'none'} end
local is_active = f[1] == 'queued' or f[1] == 'running'
if not is_active and redis.call('EXISTS', KEYS[3]) == 0 then return {'expired'} end
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local next_seq, size, complete = '1', '0', ''
if newest then
  next_seq = string.format('%.0f', tonumber(string.match(newest[1], '%d+')) + 1)
  size, complete = newest[2][4], newest[2][6]
elseif f[5] then
  next_seq, size, complete = string.match(f[5], '^(%d+) (%d+) (1?)$')
end
return {'ok', next_seq, size, f[3] or '0', complete, f[1], f[2]}
