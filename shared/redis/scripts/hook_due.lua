-- Returns the due deliveries of one owner to one host, and plans the next check of this host.
-- KEYS[1] hosts, of one owner  [2] due, of this owner and host
-- ARGV[1] the member of hosts  [2] number max  [3] ms until the next check, if deliveries are due now
-- Returns ids. A host without deliveries leaves the index in the same step, so that a delivery which
-- is added meanwhile is not lost.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if not first[1] then
  redis.call('ZREM', KEYS[1], ARGV[1])
  return {}
end
local check_at = math.max(tonumber(first[2]), now + tonumber(ARGV[3]))
redis.call('ZADD', KEYS[1], string.format('%.0f', check_at), ARGV[1])
return redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[2])
