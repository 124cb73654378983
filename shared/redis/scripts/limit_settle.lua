-- Ends the count of generations of one owner, and charges the tokens that they took.
-- ARGV[1..] id, tokens, … Tokens may be '': not known, what was estimated counts; '-': the generation
--     was not accepted, and nothing of it counts
-- Returns the number of generations that counted until now. A repeat changes nothing.
local found = 0
for i = 1, #ARGV, 2 do
  local estimated, day, kind = remove(ARGV[i])
  if estimated then
    found = found + 1
    local is_undone = ARGV[i + 1] == '-'
    local back = is_undone and estimated or estimated - (tonumber(ARGV[i + 1]) or estimated)
    local f = redis.call('HMGET', KEYS[1], 'prompts', 'tokens', 'at', 'prompts_max', 'tokens_max', 'day')
    if kind == 'prompt' and f[3] then
      local prompts = level(f[1], f[3], tonumber(f[4]))
      local tokens = level(f[2], f[3], tonumber(f[5]))
      if tokens then tokens = math.min(tonumber(f[5]), tokens + back) end
      if prompts and is_undone then prompts = math.min(tonumber(f[4]), prompts + 1) end
      put_levels(prompts, f[4], tokens, f[5])
    end
    -- Tokens belong to the day in which the generation was accepted.
    if f[6] == day and back ~= 0 then redis.call('HINCRBY', KEYS[1], 'used', decimal(-back)) end
  end
end
return found
