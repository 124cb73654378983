-- Makes a webhook due again that was given up.
-- KEYS[1] record  [2] dead letters  [3] owners  [4] hosts, of this owner  [5] due, of its place
-- ARGV[1] id  [2] owner  [3] the place  [4] ms until an unchanged record expires
-- Returns 1, or 0: it is no dead letter, or an operator has driven it again already.
redis.call('ZREM', KEYS[2], ARGV[1])
local f = redis.call('HMGET', KEYS[1], 'state', 'result', 'url', 'body', 'place')
if f[1] ~= 'done' or f[2] ~= 'given_up' or not f[3] or not f[4] or f[5] ~= ARGV[3] then return 0 end
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
redis.call('HSET', KEYS[1], 'state', 'due', 'tries', '0')
redis.call('HDEL', KEYS[1], 'result', 'reason')
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('ZADD', KEYS[3], 'LT', now, ARGV[2])
redis.call('ZADD', KEYS[4], 'LT', now, ARGV[3])
redis.call('ZADD', KEYS[5], now, ARGV[1])
return 1
