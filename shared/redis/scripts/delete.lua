-- Deletes a generation and leaves a seal: it cannot be read or written any more. Every node is told in
-- the same step, so that no node keeps its copy if the caller dies.
-- ARGV[1] retention ms  [2] id; '' on a cluster, where the caller tells the nodes
-- Returns {'sealed', owner} | {'absent'}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'absent'} end
local owner = redis.call('HGET', KEYS[1], 'owner')
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'status', 'sealed', 'deleted', '1')
redis.call('PEXPIRE', KEYS[1], decimal(2 * tonumber(ARGV[1])))
if ARGV[2] ~= '' then redis.call('PUBLISH', 'tr:deleted', ARGV[2]) end
return {'sealed', owner or ''}
