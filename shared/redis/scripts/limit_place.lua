-- Sets how many places for readers of one owner a node has, unless all nodes together would have too many.
-- KEYS[1] hash: node -> 'places until', ms  [2] hash: reader -> how often it was told that there are too many
-- ARGV[1] node  [2] its readers, with a new one  [3] ms until they count no longer
--     [4] readers max of all nodes; 0: no limit  [5] '1': refuse readers beyond the limit
--     [6] places that the node wants ahead, while all nodes together have less than half of the limit
--     [7] '' or: who asks, to be told
--     [8] ms until what was told is forgotten; it is also forgotten when it is TOLD_OFTEN
-- Returns {1, places of this node} | {0, 0, how often this reader was told}
-- A call has the complete number, never a difference. So it may be repeated, and a node that dies
-- loses its places with the time.
local TOLD_MAX, TOLD_OFTEN = 10000, 3
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local others, row = 0, redis.call('HGETALL', KEYS[1])
for i = 1, #row, 2 do
  local readers, until_ms = string.match(row[i + 1], '(%d+) (%d+)')
  if tonumber(until_ms) <= now then
    redis.call('HDEL', KEYS[1], row[i])
  elseif row[i] ~= ARGV[1] then
    others = others + tonumber(readers)
  end
end
local own, max = tonumber(ARGV[2]), tonumber(ARGV[4])
if ARGV[5] == '1' and max > 0 and others + own > max then
  if ARGV[7] == '' then return {0, 0, 0} end
  if redis.call('HLEN', KEYS[2]) >= TOLD_MAX then redis.call('DEL', KEYS[2]) end
  local told = redis.call('HINCRBY', KEYS[2], ARGV[7], 1)
  redis.call('PEXPIRE', KEYS[2], ARGV[8])
  if told >= TOLD_OFTEN then redis.call('HDEL', KEYS[2], ARGV[7]) end
  return {0, 0, told}
end
local ahead = tonumber(ARGV[6])
if ahead > 0 and 2 * (others + own + ahead) <= max then own = own + ahead end
if own == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f', own, now + ARGV[3]))
  if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
end
return {1, own}
