-- Takes, keeps and gives back slots of a backend, and grants free slots to those that wait longest.
-- KEYS[1] held: id -> until when, ms  [2] line: id -> its place  [3] entries: id -> queue entry, JSON
-- KEYS[4] turns: '<class>:<owner>' -> the last place of the owner, '<class>' -> the place on turn,
--     'passed' -> slots that passed by the lines of batches that wait
-- ARGV[1] slots  [2] a taken slot is kept for, ms  [3] a granted slot is kept for, ms
-- ARGV[4] id that wants a slot; '' = none  [5] its queue entry; '' = it does not wait
-- ARGV[6] class, 0 first; lines of batches have 2 and 3  [7] owner, digest  [8] weight of the owner
-- ARGV[9] how many ids give their slot back; these ids, then the ids that keep their slot
-- Returns {1 if the id has a slot, the queue entry of each id that was granted one…}
-- Every call may be repeated. The place of an id is a virtual time: an owner with many ids in the line
-- gets the places of later rounds, so that the owners take turns. Of `TURNS` slots one goes to the lines of
-- batches while some wait, so that prompts without end cannot starve them.
local CLASS, BATCH, TURNS = 2 ^ 40, 2, 8
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function decimal(number) return string.format('%.0f', number) end
local function hold(id, ms) redis.call('ZADD', KEYS[1], decimal(now + tonumber(ms)), id) end
local function leave(id)
  redis.call('ZREM', KEYS[2], id)
  redis.call('HDEL', KEYS[3], id)
end

local released = tonumber(ARGV[9])
for i = 10, 9 + released do
  redis.call('ZREM', KEYS[1], ARGV[i])
  leave(ARGV[i])
end
-- A slot is also kept if it has expired: its answer is still under way, so the slot is not free.
for i = 10 + released, #ARGV do hold(ARGV[i], ARGV[2]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', decimal(now))

local wanted, taken = ARGV[4], 0
if wanted ~= '' and redis.call('ZSCORE', KEYS[1], wanted) then
  hold(wanted, ARGV[2])
  leave(wanted)
  taken = 1
elseif wanted ~= '' and not redis.call('ZSCORE', KEYS[2], wanted) then
  local owner = ARGV[6] .. ':' .. ARGV[7]
  local on_turn = tonumber(redis.call('HGET', KEYS[4], ARGV[6]) or '0')
  local last = tonumber(redis.call('HGET', KEYS[4], owner) or '0')
  local place = math.max(on_turn, last) + 1 / tonumber(ARGV[8])
  redis.call('ZADD', KEYS[2], string.format('%.17g', tonumber(ARGV[6]) * CLASS + place), wanted)
  redis.call('HSET', KEYS[3], wanted, ARGV[5])
  redis.call('HSET', KEYS[4], owner, string.format('%.17g', place))
end

local reply = {taken}
local slots = tonumber(ARGV[1])
local free = slots - redis.call('ZCARD', KEYS[1])
if free > 0 then
  -- Those with a granted slot stay in the line until a worker takes the slot: there are at most
  -- `slots` of them.
  local function waiting(least, below)
    local found, left = redis.call('ZRANGEBYSCORE', KEYS[2], least, below, 'WITHSCORES', 'LIMIT', 0, slots + free), {}
    for i = 1, #found, 2 do
      if not redis.call('ZSCORE', KEYS[1], found[i]) then
        left[#left + 1] = {found[i], tonumber(found[i + 1])}
      end
    end
    return left
  end
  local prompts = waiting('-inf', '(' .. decimal(BATCH * CLASS))
  local lines = waiting(decimal(BATCH * CLASS), '+inf')
  local passed = tonumber(redis.call('HGET', KEYS[4], 'passed') or '0')
  local p, l = 1, 1
  while free > 0 and (prompts[p] or lines[l]) do
    free = free - 1
    local first
    if lines[l] and (passed >= TURNS - 1 or not prompts[p]) then
      first, l, passed = lines[l], l + 1, 0
    else
      if lines[l] then passed = passed + 1 end
      first, p = prompts[p], p + 1
    end
    local id, class = first[1], math.floor(first[2] / CLASS)
    redis.call('HSET', KEYS[4], decimal(class), string.format('%.17g', first[2] - class * CLASS),
      'passed', decimal(passed))
    if id == wanted then
      hold(id, ARGV[2])
      leave(id)
      reply[1] = 1
    else
      hold(id, ARGV[3])
      reply[#reply + 1] = redis.call('HGET', KEYS[3], id)
    end
  end
end
if wanted ~= '' and reply[1] == 0 and ARGV[5] == '' then leave(wanted) end
if redis.call('ZCARD', KEYS[2]) == 0 then redis.call('DEL', KEYS[4]) end
return reply
