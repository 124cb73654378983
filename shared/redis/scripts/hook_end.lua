-- Makes the delivery of a webhook due, because its subject has ended.
-- KEYS[1] record  [2] waiting  [3] owners  [4] hosts, of this owner  [5] due, of this owner and host
-- ARGV[1] id  [2] owner  [3] the member of hosts  [4] ms until an unchanged record expires
--     [5..] field, value, … of the record
-- Returns 1, or 0: it was due or done already.
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'due' or state == 'done' then return 0 end
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
redis.call('HSET', KEYS[1], 'state', 'due', 'tries', '0', unpack(ARGV, 5))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], 'LT', now, ARGV[2])
redis.call('ZADD', KEYS[4], 'LT', now, ARGV[3])
redis.call('ZADD', KEYS[5], now, ARGV[1])
return 1
