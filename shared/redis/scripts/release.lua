-- Gives a generation back, so that the next holder need not wait until the lease expires.
-- ARGV[1] token  [2] attempt  [3] '1': this attempt failed
-- Returns {'ok', failures, when, ms} | {'ended'} | {'fenced'} | {'lost', id}
local f = redis.call('HMGET', KEYS[1], 'status', 'token', 'attempt')
local refused = refusal(f, ARGV[1], ARGV[2])
if refused then return refused end
local failures = redis.call('HINCRBY', KEYS[1], 'failures', ARGV[3])
local now = now_ms()
redis.call('HSET', KEYS[1], 'held_ms', decimal(held_ms(now)), 'token', '', 'lease', '0',
  'waiting', decimal(now))
redis.call('HDEL', KEYS[1], 'held')
return {'ok', decimal(failures), decimal(now)}
