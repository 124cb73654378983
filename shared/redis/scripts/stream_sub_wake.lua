-- Begins a wake, if there are unread entries and no wake runs.
-- KEYS[1..3] as in the prelude
-- ARGV[1] path that has new entries or ''  [2] '1' the pattern matches it  [3] '1' the stream is a new one
--     [4] id of the wake  [5] links max
-- Returns {'absent'} | {'idle'} | {'awake', until or ''} | {'woken', generation, path, until or ''}
local now = clock()
local record = load(1)
if not record then return {'absent'} end
if ARGV[1] ~= '' then
  local kinds, acked = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^(%a*) (.*)$')
  if kinds and ARGV[3] == '1' then
    acknowledge(ARGV[1], kinds, '-1')
  elseif not kinds and ARGV[2] == '1' and redis.call('HLEN', KEYS[2]) < tonumber(ARGV[5]) then
    acknowledge(ARGV[1], 'g', '-1')
  end
end
if is_awake(record, now) then return {'awake', record['until'] or ''} end
local links, first = links_of()
if first == '' then return {'idle'} end
begin_wake(record, links, ARGV[4], now)
return {'woken', record.generation, first, record['until'] or ''}
