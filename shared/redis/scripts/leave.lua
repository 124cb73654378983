-- Takes an ended generation out of the queue's indexes, and notes that its usage is to be counted.
-- KEYS[1] running  [2] waiting:interactive  [3] waiting:batch  [4] unsettled
-- ARGV[1] id
-- In one step: an ended generation is always in one of these indexes until its usage is counted.
-- A repeat sets a new score, so that usage_done of an earlier look does not remove it.
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
local time = redis.call('TIME')
redis.call('ZADD', KEYS[4], string.format('%.0f', time[1] * 1000000 + time[2]), ARGV[1])
return 1
