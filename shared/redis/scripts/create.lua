-- Creates a generation: the moment of acceptance.
-- ARGV[1] '1' when an earlier create may have been lost: later attempts then jump
-- ARGV[2..] field, value, …
-- Returns {'ok', created_ms} | {'exists', status, created_ms}
local known = redis.call('HMGET', KEYS[1], 'status', 'created')
if known[1] then return {'exists', known[1], known[2] or '0'} end
local now = now_ms()
local hist = history()
if ARGV[1] == '1' or not hist then hist = 'lost' end
redis.call('HSET', KEYS[1], 'status', 'queued', 'attempt', '0', 'failures', '0', 'lease', '0',
  'hist', hist, 'created', whole(now), 'waiting', whole(now), unpack(ARGV, 2))
return {'ok', whole(now)}
