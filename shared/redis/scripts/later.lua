-- Moves due entries from `later` to the resume lane.
-- KEYS[1] later  [2] resume lane
-- ARGV[1] number max
-- Members are queue entries, JSON. Returns the number of moved entries.
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, entry in ipairs(due) do
  redis.call('ZREM', KEYS[1], entry)
  redis.call('XADD', KEYS[2], '*', 'e', entry)
end
return #due
