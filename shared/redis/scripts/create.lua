-- Creates a generation: the moment of acceptance.
-- KEYS[1] meta, and no other: in a migrating slot a script on two absent keys would have to wait.
-- ARGV[1] '1': Redis may have lost an earlier create, so later attempts jump to the clock
-- ARGV[2..] field, value, …
-- Returns {'ok', created_ms} | {'exists', status, created_ms}
local known = redis.call('HMGET', KEYS[1], 'status', 'created')
if known[1] then return {'exists', known[1], known[2] or '0'} end
local now = now_ms()
local hist = history()
if ARGV[1] == '1' or not hist then hist = 'lost' end
redis.call('HSET', KEYS[1], 'status', 'queued', 'attempt', '0', 'failures', '0', 'lease', '0',
  'hist', hist, 'created', decimal(now), 'waiting', decimal(now), unpack(ARGV, 2))
return {'ok', decimal(now)}
