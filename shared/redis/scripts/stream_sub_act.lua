-- What a worker does with a wake: claims it, acknowledges offsets, is done, gives it back.
-- KEYS[1..3] as in the prelude
-- ARGV[1] 'claim' | 'ack' | 'release' | 'auto': all of the wake is done  [2] generation  [3] wake id
--     [4] '1' done  [5] worker  [6] id of the next wake  [7..] path, offset, …
-- Returns {'absent'} | {'held', worker, generation} | {'nothing'} | {'claimed', generation, wake id}
--     | {'fenced'} | {'offset', why} | {'ok', '' or generation of the next wake, its path}
local now = clock()
local record = load(1)
if not record then return {'absent'} end
local awake = is_awake(record, now)
if ARGV[1] == 'claim' then
  if awake and record.holder then return {'held', record.holder, record.generation} end
  local links, first = links_of()
  if first == '' then return {'nothing'} end
  if not awake then begin_wake(record, links, ARGV[6], now) end
  redis.call('HSET', KEYS[1], 'holder', ARGV[5])
  lease(record, now)
  return {'claimed', record.generation, record.wake_id}
end
if not awake or record.generation ~= ARGV[2] or record.wake_id ~= ARGV[3] then return {'fenced'} end
local taken = {}
for i = 7, #ARGV, 2 do
  local kinds, acked = string.match(redis.call('HGET', KEYS[2], ARGV[i]) or '', '^(%a*) (.*)$')
  if not kinds then return {'offset', 'the subscription has no such stream'} end
  if ARGV[i + 1] < acked or ARGV[i + 1] < '0' then return {'offset', 'it lies before the acknowledged offset'} end
  if ARGV[i + 1] > (redis.call('HGET', KEYS[3], ARGV[i]) or ZERO) then return {'offset', 'it lies behind the tail'} end
  taken[#taken + 1] = {ARGV[i], kinds, ARGV[i + 1]}
end
for _, one in ipairs(taken) do acknowledge(one[1], one[2], one[3]) end
if ARGV[1] == 'auto' then
  for path, tail in pairs(cjson.decode(record.snapshot)) do
    local kinds, acked = string.match(redis.call('HGET', KEYS[2], path) or '', '^(%a*) (.*)$')
    if kinds and tail > acked then acknowledge(path, kinds, tail) end
  end
end
if ARGV[1] == 'ack' and ARGV[4] ~= '1' then
  lease(record, now)
  return {'ok', '', ''}
end
clear(record)
local links, first = links_of()
if first == '' then return {'ok', '', ''} end
begin_wake(record, links, ARGV[6], now)
return {'ok', record.generation, first}
