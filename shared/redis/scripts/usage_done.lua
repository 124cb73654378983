-- Removes generations whose usage has been counted, unless they were noted again since the look.
-- KEYS[1] unsettled
-- ARGV id, score at the look, …
-- Returns the number of removed generations.
local removed = 0
for i = 1, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if score and tonumber(score) == tonumber(ARGV[i + 1]) then
    removed = removed + redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
return removed
