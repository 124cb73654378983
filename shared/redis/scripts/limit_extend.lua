-- Lets a generation count longer, if it still counts.
-- ARGV[1] id  [2] ms after which the generation counts no longer
-- Returns 1, or 0: it does not count.
if not redis.call('HGET', KEYS[1], ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[2], decimal(now + ARGV[2]), ARGV[1])
local kept_ms = ARGV[2] + 2 * DAY_MS
if redis.call('PTTL', KEYS[2]) < kept_ms then
  redis.call('PEXPIRE', KEYS[1], decimal(kept_ms + DAY_MS))
  redis.call('PEXPIRE', KEYS[2], decimal(kept_ms + DAY_MS))
end
return 1
