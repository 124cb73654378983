-- Writes the breaker of a backend, if no other worker has written it since the caller read it.
-- KEYS[1] breakers: backend -> breaker, JSON
-- ARGV[1] backend  [2] the breaker that the caller read; '' = none  [3] the new breaker
-- Returns {1 if it was written, the breaker that is there now}
local present = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if present ~= ARGV[2] then return {0, present} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return {1, ARGV[3]}
