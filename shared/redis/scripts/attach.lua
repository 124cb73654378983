-- Records that a node has readers, or that its last reader has left.
-- KEYS[1] meta  [2] readers
-- ARGV[1] node  [2] '1': the last reader has left
-- Returns {'ok'} | {'ended'}
local f = redis.call('HMGET', KEYS[1], 'status', 'grace')
if not f[1] or not is_active(f[1]) then return {'ended'} end
local grace_ms = tonumber(f[2] or '') or 0
local score = now_ms() + grace_ms
if ARGV[2] ~= '1' then score = score + READERS_FRESH_MS end
redis.call('ZADD', KEYS[2], decimal(score), ARGV[1])
-- This reader replaces '-', which stands for a reader to come.
redis.call('ZREM', KEYS[2], '-')
keep_readers(grace_ms)
return {'ok'}
