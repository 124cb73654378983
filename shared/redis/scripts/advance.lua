-- Gives an owner its next turn, once the last entry of its turn was taken from the lane.
-- KEYS[1] lane  [2] turns: owner -> '<id of the last entry of the turn> <weight>'
-- KEYS[3] line of the owner: entry, JSON -> when it was added, µs
-- ARGV[1] owner, digest  [2] id of the taken entry  [3] entries that the caller can start at once
-- Returns the number of entries that were moved to the lane.
-- A repeat does nothing, because a turn has another id then. Without a turn the line is empty, unless
-- a worker of an older version or an operator has changed the keys: then this begins a turn.
local turn, weight = redis.call('HGET', KEYS[2], ARGV[1]), '1'
if turn then
  local id
  id, weight = string.match(turn, '(%S+) (%d+)')
  if id ~= ARGV[2] then return 0 end
end
local count = tonumber(weight)
if tonumber(ARGV[3]) > count then
  -- Free slots are shared by all owners that wait. Nobody waits longer by this.
  count = math.max(count, math.floor(tonumber(ARGV[3]) / math.max(1, redis.call('HLEN', KEYS[2]))))
end
local popped = redis.call('ZPOPMIN', KEYS[3], count)
local last
for i = 1, #popped, 2 do last = redis.call('XADD', KEYS[1], '*', 'e', popped[i]) end
if last then
  redis.call('HSET', KEYS[2], ARGV[1], last .. ' ' .. weight)
elseif turn then
  redis.call('HDEL', KEYS[2], ARGV[1])
end
return #popped / 2
