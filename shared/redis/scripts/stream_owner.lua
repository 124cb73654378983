-- Moves an owner in the index of owners to the next time to look, or removes it, unless a stream was created meanwhile.
-- KEYS[1] index of owners  ARGV[1] digest of the owner  [2] score that was read  [3] next look, ms, or ''
-- Returns 1 | 0: another score
if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('ZREM', KEYS[1], ARGV[1]) else redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1]) end
return 1
