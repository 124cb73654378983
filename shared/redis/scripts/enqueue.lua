-- Adds a generation to a lane and to the index of waiting generations. With KEYS[3] and [4] its owner
-- takes turns: while the owner has an open turn (entries on the lane), the entry waits in the owner's
-- line, and `advance` moves it to the lane later.
-- KEYS[1] lane  [2] waiting  [3] turns  [4] line of the owner
-- ARGV[1] id  [2] entry, JSON  [3] how many may wait; '' = any number  [4] owner, digest  [5] weight
-- Returns the number of waiting generations, or 0: too many wait, and it was not added
local waiting = redis.call('ZCARD', KEYS[2])
if ARGV[3] ~= '' and waiting >= tonumber(ARGV[3])
    and not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  return 0
end
local turn, since = #KEYS > 2 and redis.call('HGET', KEYS[3], ARGV[4]), nil
if turn then
  local time = redis.call('TIME')
  since = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
  -- The score is the time in µs: entries of one millisecond keep their order.
  redis.call('ZADD', KEYS[4], 'NX', time[1] .. string.format('%06d', tonumber(time[2])), ARGV[2])
  local entry, weight = string.match(turn, '(%S+) (%d+)')
  if weight ~= ARGV[5] then redis.call('HSET', KEYS[3], ARGV[4], entry .. ' ' .. ARGV[5]) end
else
  -- The id of the entry begins with Redis's clock, ms.
  local entry = redis.call('XADD', KEYS[1], '*', 'e', ARGV[2])
  since = string.match(entry, '%d+')
  if #KEYS > 2 then redis.call('HSET', KEYS[3], ARGV[4], entry .. ' ' .. ARGV[5]) end
end
redis.call('ZADD', KEYS[2], 'NX', since, ARGV[1])
return waiting + 1
