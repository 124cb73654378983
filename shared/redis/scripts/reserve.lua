-- Reserves an idempotency key: the first id that comes with the key has it from now on.
-- KEYS[1] the key
-- ARGV[1] new id   ARGV[2] digest of the request   ARGV[3] how long the key is kept, ms
-- Returns {what the key names, the age of its reservation in ms, the history now}. A key names
-- `id digest` and, on a second line, the history at the reservation, '' if it is unknown.
local current = history() or ''
local kept_ms = tonumber(ARGV[3])
local named = ARGV[1] .. ' ' .. ARGV[2] .. '\n' .. current
if redis.call('SET', KEYS[1], named, 'NX', 'PX', kept_ms) then return {named, 0, current} end
-- The end of the generation shortens the life of the key, which only makes the age larger.
local left_ms = redis.call('PTTL', KEYS[1])
return {redis.call('GET', KEYS[1]), math.max(0, kept_ms - left_ms), current}
