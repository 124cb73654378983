-- Seals an absent generation: no worker can write it any more.
-- ARGV[1] retention ms
-- Returns {'sealed'} | {'exists', status}
local status = redis.call('HGET', KEYS[1], 'status')
if status == 'sealed' then return {'sealed'} end
if status then return {'exists', status} end
redis.call('HSET', KEYS[1], 'status', 'sealed')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return {'sealed'}
