-- Returns the bytes and the number of one owner's files, after removing expired files.
-- KEYS[1] expiries of the owner's files  [2] their sizes, and `sum`
-- ARGV[1] number max of expired files to remove
-- Returns {bytes, files}, or an empty table: there is no count.
local sum = redis.call('HGET', KEYS[2], 'sum')
if not sum then return {} end
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  redis.call('ZREM', KEYS[1], id)
  local size = redis.call('HGET', KEYS[2], id)
  if size then
    redis.call('HDEL', KEYS[2], id)
    sum = redis.call('HINCRBY', KEYS[2], 'sum', string.format('%.0f', -tonumber(size)))
  end
end
return {tonumber(sum), redis.call('HLEN', KEYS[2]) - 1}
