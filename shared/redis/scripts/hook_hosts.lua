-- Finds the hosts of one owner to which something may be due, and when to look at this owner again.
-- KEYS[1] owners  [2] hosts, of this owner
-- ARGV[1] owner  [2] at most this many  [3] ms until the next look, where something is due now
-- Returns members of the hosts, the longest waiting first. An owner with nothing to come leaves the
-- index in the same step, so that what is added meanwhile is not forgotten.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if not first[1] then
  redis.call('ZREM', KEYS[1], ARGV[1])
  return {}
end
local look = math.max(tonumber(first[2]), now + tonumber(ARGV[3]))
redis.call('ZADD', KEYS[1], string.format('%.0f', look), ARGV[1])
return redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[2])
