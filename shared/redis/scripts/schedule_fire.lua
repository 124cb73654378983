-- Begins a firing, unless it is done; returns whether it has been begun before.
-- KEYS[1] record
-- ARGV[1] due ms
-- Returns '' (the firing is done, or the schedule deleted), 'first' or 'repeat'
if redis.call('HGET', KEYS[1], 'next') ~= ARGV[1] then return '' end
if redis.call('HGET', KEYS[1], 'firing') == ARGV[1] then return 'repeat' end
redis.call('HSET', KEYS[1], 'firing', ARGV[1])
return 'first'
