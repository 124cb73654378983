-- Puts a generation on a lane, and among those that wait.
-- KEYS[1] lane  [2] waiting
-- ARGV[1] id  [2] entry, JSON  [3] how many may wait, '' = any number
-- Returns 1, or 0 where too many wait
if ARGV[3] ~= '' and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[3])
    and not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  return 0
end
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
redis.call('XADD', KEYS[1], '*', 'e', ARGV[2])
redis.call('ZADD', KEYS[2], 'NX', now, ARGV[1])
return 1
