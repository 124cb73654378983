-- Keeps how far the audio input of an ended generation had got, before the input is deleted.
-- May be repeated.
-- KEYS[1] meta  [2] audio
-- Returns 'ok'
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if newest and redis.call('EXISTS', KEYS[1]) == 1 then
  local top = tonumber(string.match(newest[1], '%d+'))
  local kept = string.format('%.0f %s %s', top + 1, newest[2][4], newest[2][6])
  redis.call('HSET', KEYS[1], 'audio_end', kept)
end
return 'ok'
