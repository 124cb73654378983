-- Begins a firing: says whether it is still wanted, and whether it may have been begun before.
-- KEYS[1] record
-- ARGV[1] due ms
-- Returns '' (not wanted: deleted, or done), 'first' or 'repeat'
if redis.call('HGET', KEYS[1], 'next') ~= ARGV[1] then return '' end
if redis.call('HGET', KEYS[1], 'firing') == ARGV[1] then return 'repeat' end
redis.call('HSET', KEYS[1], 'firing', ARGV[1])
return 'first'
