-- Counts the usage of ended generations of one owner that were accepted on one day, each of them once.
-- KEYS[1] sums of the month: '<day> <model>' -> six figures
-- KEYS[2] counted on the day: id -> '<when the fact was written, ms> <six figures> <model>'
-- KEYS[3] when the owner was forgotten, ms
-- ARGV[1] the day in its month, 2 digits  [2] age in ms above which a fact is refused
--     [3] ms until the sums expire  [4] ms until KEYS[2] expires  [5] most rows of a month
--     [6] model of the rows beyond them
--     then five words for each generation: id, when the fact was written, ms, when the generation was
--     created, ms, its six figures, its model
-- Returns the number of generations that changed the sums.
-- A fact replaces what KEYS[2] has of its generation, so a repeat changes nothing, and an older fact
-- is ignored. [4] is larger than [2]: a fact that KEYS[2] has forgotten is refused.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local forgotten = tonumber(redis.call('GET', KEYS[3]) or '-1')
local COUNTED = '^(%d+) (%d+ %d+ %d+ %d+ %d+ %d+) (.*)$'
local changed = 0

local function add(row, figures, sign)
  local own = string.gmatch(redis.call('HGET', KEYS[1], row) or '0 0 0 0 0 0', '%d+')
  local sums = {}
  for figure in string.gmatch(figures, '%d+') do
    sums[#sums + 1] = string.format('%.0f', math.max(0, tonumber(own()) + sign * tonumber(figure)))
  end
  if string.match(table.concat(sums), '[1-9]') then
    redis.call('HSET', KEYS[1], row, table.concat(sums, ' '))
  else
    redis.call('HDEL', KEYS[1], row)
  end
end

-- A month with too many rows puts further models into one row.
local function row_of(model)
  local row = ARGV[1] .. ' ' .. model
  if redis.call('HEXISTS', KEYS[1], row) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[5]) then
    return ARGV[1] .. ' ' .. ARGV[6], ARGV[6]
  end
  return row, model
end

for i = 7, #ARGV, 5 do
  local id, written, figures = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 3]
  local at, old_figures, old_model = string.match(redis.call('HGET', KEYS[2], id) or '', COUNTED)
  local is_refused = written < now - tonumber(ARGV[2]) or tonumber(ARGV[i + 2]) <= forgotten
  if not is_refused and not (at and tonumber(at) > written) then
    if at then add(ARGV[1] .. ' ' .. old_model, old_figures, -1) end
    local row, model = row_of(ARGV[i + 4])
    add(row, figures, 1)
    redis.call('HSET', KEYS[2], id, ARGV[i + 1] .. ' ' .. figures .. ' ' .. model)
    if old_figures ~= figures then changed = changed + 1 end
  end
end
if changed > 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
return changed
