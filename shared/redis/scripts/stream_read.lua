-- Reads what a stream is, and entries of its own log.
-- KEYS[1] meta  [2] names of the owner  [3] entries
-- ARGV[1] '1' the stream is being used: its end moves  [2] idle ms
--     [3] place after which to read; '' no entries  [4] bytes to read, at least one entry  [5] entries max
-- Returns {'absent'} | {'gone'} | {'live', fields in the order of FIELDS, entries}
local FIELDS = {'type', 'media', 'tail', 'start', 'closed', 'ttl', 'shown', 'parents', 'lineage', 'until'}
local now = clock()
local meta = load(1)
local state = state_of(meta, now)
if state == 'gone' then return {'gone'} end
if state ~= 'live' then return {'absent'} end
if ARGV[1] == '1' then touch(meta, 1, 2, now, tonumber(ARGV[2])) end
local shown = {}
for i, name in ipairs(FIELDS) do shown[i] = meta[name] or '' end
local after, found = ARGV[3], {}
if after ~= '' then
  if position(after) < position(meta.start) then after = meta.start end
  if position(after) < position(meta.tail) then
    local from, up_to = '(' .. entry_id(after), position(after) + tonumber(ARGV[4])
    found = redis.call('XRANGE', KEYS[3], from, number(up_to), 'COUNT', ARGV[5])
    if #found == 0 then found = redis.call('XRANGE', KEYS[3], from, '+', 'COUNT', 1) end
  end
end
return {'live', shown, found}
