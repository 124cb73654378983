-- Removes a consumer of a lane that is idle and holds no entries.
-- KEYS[1] lane
-- ARGV[1] group  [2] consumer  [3] idle for at least this many ms
-- Returns 1, or 0: it holds entries, is not idle, or is absent. Redis deletes the pending entries of a
-- consumer with it, so this script checks both in one step.
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
