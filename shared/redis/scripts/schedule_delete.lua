-- Deletes a schedule. What it has started stays.
-- KEYS[1] record  [2] due  [3] the owner's, by age  [4] the owner's, unfinished
-- ARGV[1] id
-- Returns 1, or 0: absent.
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('SREM', KEYS[4], ARGV[1])
return redis.call('DEL', KEYS[1])
