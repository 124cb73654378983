-- Takes a delivery for one attempt: no other process takes it before the lease expires.
-- KEYS[1] record  [2] due, of its owner and host  [3] busy, of this host
-- ARGV[1] id  [2] lease ms  [3] number max of running attempts to this host
-- Returns the number of the attempt, or 0: not due, absent, or too many attempts run.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local due = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not due or tonumber(due) > now then return 0 end
if redis.call('HGET', KEYS[1], 'state') ~= 'due' then
  redis.call('ZREM', KEYS[2], ARGV[1])
  return 0
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('%.0f', now))
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[3]) then return 0 end
local until_ms = string.format('%.0f', now + tonumber(ARGV[2]))
redis.call('ZADD', KEYS[2], until_ms, ARGV[1])
redis.call('ZADD', KEYS[3], until_ms, ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[2])
return redis.call('HINCRBY', KEYS[1], 'tries', 1)
