-- Notes the tokens that the last worker of an ended generation has counted, where the end lacks them:
-- the server reports none, or the end was written from outside while the worker was reading.
-- KEYS[1] meta
-- ARGV[1] attempt of the worker  [2] counts, JSON
-- Returns 1, or 0: the generation has no end, is gone, or had another worker last.
local f = redis.call('HMGET', KEYS[1], 'status', 'attempt', 'cut', 'ended')
if not f[1] or f[1] == 'sealed' or is_active(f[1]) then return 0 end
if (f[3] or f[2]) ~= ARGV[1] then return 0 end
-- Later than the end, so that this is the newer fact of the two (usage_settle.lua).
local now = math.max(now_ms(), tonumber(f[4] or '0') + 1)
redis.call('HSET', KEYS[1], 'spent', ARGV[2], 'spent_at', decimal(now))
return 1
