-- The holder takes the next lines: the cursor moves past them and they are in flight, in one step.
-- ARGV[1] token  [2] attempt  [3] lease ms  [4] top of the log as the caller knows it
--     [5] lines before these  [6] lines with these
--     [7] where the line after them begins, bytes; then line, "offset length try", …
-- Returns {'ok', top} | {'status', status} | {'ended'} | {'fenced'} | {'lost', id} | {'moved'}
-- Repeated it answers the same.
local stopped = stop(ARGV[1], ARGV[2], ARGV[4])
if stopped then return stopped end
local b = redis.call('HMGET', KEYS[5], 'status', 'line')
if b[2] == ARGV[6] then return {'ok', ARGV[4]} end
if b[1] ~= 'in_progress' then return {'status', b[1] or ''} end
if b[2] ~= ARGV[5] then return {'moved'} end
if ARGV[8] then redis.call('HSET', KEYS[6], unpack(ARGV, 8)) end
redis.call('HSET', KEYS[5], 'line', ARGV[6], 'offset', ARGV[7])
push_lease(now_ms(), ARGV[3])
return {'ok', ARGV[4]}
