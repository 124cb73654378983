-- Adds a generation to a lane and to the index of waiting generations.
-- KEYS[1] lane  [2] waiting
-- ARGV[1] id  [2] entry, JSON  [3] how many may wait; '' = any number
-- Returns the number of waiting generations, or 0: too many wait, and it was not added
local waiting = redis.call('ZCARD', KEYS[2])
if ARGV[3] ~= '' and waiting >= tonumber(ARGV[3])
    and not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  return 0
end
-- The id of the entry begins with Redis's clock, ms.
local entry = redis.call('XADD', KEYS[1], '*', 'e', ARGV[2])
redis.call('ZADD', KEYS[2], 'NX', string.match(entry, '%d+'), ARGV[1])
return waiting + 1
