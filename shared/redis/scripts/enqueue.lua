-- Puts a generation on a lane, and among those that wait.
-- KEYS[1] lane  [2] waiting
-- ARGV[1] id  [2] entry, JSON  [3] how many may wait, '' = any number
-- Returns how many wait now, or 0 where too many wait and it was not put
local waiting = redis.call('ZCARD', KEYS[2])
if ARGV[3] ~= '' and waiting >= tonumber(ARGV[3])
    and not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  return 0
end
-- An entry's own id begins with Redis's clock.
local entry = redis.call('XADD', KEYS[1], '*', 'e', ARGV[2])
redis.call('ZADD', KEYS[2], 'NX', string.match(entry, '%d+'), ARGV[1])
return waiting + 1
