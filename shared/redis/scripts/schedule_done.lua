-- Ends a firing: it has made something, or never will; the schedule is due again, or over.
-- KEYS[1] record  [2] due  [3] the owner's, unfinished
-- ARGV[1] id  [2] due ms  [3] next due ms, or ''  [4] how long a finished one is kept, ms
--     [5..] field, value, … of the record
-- Returns 1, or 0 where somebody else has done this.
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
