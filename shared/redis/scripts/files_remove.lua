-- Removes a file from the count of one owner.
-- KEYS[1] expiries of the owner's files  [2] their sizes, and `sum`
-- ARGV[1] id
-- Returns 1, or 0: it was not counted.
redis.call('ZREM', KEYS[1], ARGV[1])
local size = redis.call('HGET', KEYS[2], ARGV[1])
if not size then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HINCRBY', KEYS[2], 'sum', string.format('%.0f', -tonumber(size)))
return 1
