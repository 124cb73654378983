-- A node says that it has readers, or (leaving) that its last has gone.
-- ARGV[1] node  [2] '1': leaving
-- Returns {'ok'} | {'ended'}
local f = redis.call('HMGET', KEYS[1], 'status', 'grace')
if not f[1] or not is_active(f[1]) then return {'ended'} end
local grace_ms = tonumber(f[2] or '') or 0
local score = now_ms() + grace_ms
if ARGV[2] ~= '1' then score = score + READERS_FRESH_MS end
redis.call('ZADD', KEYS[4], whole(score), ARGV[1])
-- The reader that was about to come has come: its stand-in counts no longer.
redis.call('ZREM', KEYS[4], '-')
return {'ok'}
