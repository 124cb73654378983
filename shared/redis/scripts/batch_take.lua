-- Takes the next lines: moves the cursor past them and adds them to the flight, in one step.
-- ARGV[1] token  [2] attempt  [3] lease ms  [4] the caller's newest id of the log
--     [5] the cursor now, in lines  [6] the cursor afterwards
--     [7] the byte where the next line begins; then line, "offset length try", …
-- Returns {'ok', top} | {'status', status} | {'ended'} | {'fenced'} | {'lost', id} | {'moved'}
-- A repeat returns the same.
local refused = batch_refusal(ARGV[1], ARGV[2], ARGV[4])
if refused then return refused end
local b = redis.call('HMGET', KEYS[3], 'status', 'line')
if b[2] == ARGV[6] then return {'ok', ARGV[4]} end
if b[1] ~= 'in_progress' then return {'status', b[1] or ''} end
if b[2] ~= ARGV[5] then return {'moved'} end
if ARGV[8] then redis.call('HSET', KEYS[4], unpack(ARGV, 8)) end
redis.call('HSET', KEYS[3], 'line', ARGV[6], 'offset', ARGV[7])
extend_lease(now_ms(), ARGV[3])
return {'ok', ARGV[4]}
