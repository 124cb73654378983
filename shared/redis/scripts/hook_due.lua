-- Returns what is due in one index, and plans the next check of that index in the one above: hosts of
-- an owner, or deliveries of an owner to one host.
-- KEYS[1] the index above: owners, or hosts of an owner  [2] hosts of the owner, or deliveries to the host
-- ARGV[1] the member of KEYS[1]  [2] number max  [3] ms until the next check, if some are due now
-- Returns members of KEYS[2], the longest waiting first. An index without any leaves the one above in
-- the same step, so that a delivery which is added meanwhile is not lost.
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
