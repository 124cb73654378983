-- Removes a consumer of a lane that holds nothing and has not been heard of for long.
-- KEYS[1] lane
-- ARGV[1] group  [2] consumer  [3] idle for at least this many ms
-- Returns 1, or 0: it has something, was heard of, or is gone. What a consumer has pending is thrown
-- away with it, so both are looked at in the same step.
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local known = {}
  for i = 1, #row, 2 do known[row[i]] = row[i + 1] end
  if known['name'] == ARGV[2] and known['idle'] >= tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
    return 1
  end
end
return 0
