-- Ends a firing, and sets the next due time or finishes the schedule.
-- KEYS[1] record  [2] due  [3] the owner's, unfinished
-- ARGV[1] id  [2] due ms  [3] next due ms, or ''  [4] ms until a finished record expires
--     [5..] field, value, … of the record
-- Returns 1, or 0: another process has ended this firing.
if redis.call('HGET', KEYS[1], 'next') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'next', ARGV[3], unpack(ARGV, 5))
redis.call('HDEL', KEYS[1], 'firing')
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('SREM', KEYS[3], ARGV[1])
  redis.call('HDEL', KEYS[1], 'body')
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
else
  redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
end
return 1
