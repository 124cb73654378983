-- The holder takes the next lines: the cursor moves past them and they are in flight, in one step.
-- ARGV[1] token  [2] attempt  [3] lease ms  [4] lines before these  [5] lines with these
--     [6] where the line after them begins, bytes; then line, "offset length try", …
-- Returns {'ok'} | {'status', status} | {'ended'} | {'fenced'} | {'lost', id}
-- Repeated it answers the same.
local refused = refusal(redis.call('HMGET', KEYS[1], 'status', 'token', 'attempt'), ARGV[1], ARGV[2])
if refused then return refused end
local b = redis.call('HMGET', KEYS[5], 'status', 'line')
if b[2] == ARGV[5] then return {'ok'} end
if b[1] ~= 'in_progress' or b[2] ~= ARGV[4] then return {'status', b[1] or ''} end
if ARGV[7] then redis.call('HSET', KEYS[6], unpack(ARGV, 7)) end
redis.call('HSET', KEYS[5], 'line', ARGV[5], 'offset', ARGV[6])
push_lease(now_ms(), ARGV[3])
return {'ok'}
