-- Deletes a generation and leaves a seal: it cannot be read or written any more.
-- ARGV[1] retention ms
-- Returns {'sealed', owner} | {'absent'}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'absent'} end
local owner = redis.call('HGET', KEYS[1], 'owner')
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'status', 'sealed')
redis.call('PEXPIRE', KEYS[1], decimal(2 * tonumber(ARGV[1])))
return {'sealed', owner or ''}
