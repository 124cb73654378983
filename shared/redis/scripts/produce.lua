-- Appends the entries of a producer outside of the workers, and extends its lease. A repeat writes nothing
-- twice: entries that the log has already are compared, and must be the same.
-- KEYS[3] readers
-- ARGV[1] token  [2] attempt  [3] seq of the first entry  [4] '' or, if the last entry is the end, its status
--     [5] retention ms  [6] bytes that the answer may have  [7..] entries, JSON; none: only the lease
-- Returns {'ok', status, id of the top, bytes before, bytes after, age ms, lease ms} | {'gap', next seq} | {'conflict', seq}
--     | {'full'} | {'fenced'} | {'ended', status} | {'absent'} | {'worker'}
local f = redis.call('HMGET', KEYS[1],
  'status', 'token', 'attempt', 'producer', 'grace', 'hist', 'created', 'deadline', 'bytes')
local status = f[1]
if not status then return {'absent'} end
if is_active(status) and not f[4] then return {'worker'} end
local bytes, first = tonumber(f[9] or '0'), tonumber(ARGV[3])
local top_attempt, top_seq, top_id = top()

local function is_written(i)
  local id = ARGV[2] .. '-' .. decimal(first + i - 7)
  local found = redis.call('XRANGE', KEYS[2], id, id)[1]
  return found and found[2][2] == ARGV[i]
end
if not is_active(status) then
  if ARGV[4] ~= '' and is_written(#ARGV) then
    for i = 7, #ARGV do
      if not is_written(i) then return {'conflict', decimal(first + i - 7)} end
    end
    return {'ok', status, top_id, decimal(bytes), decimal(bytes)}
  end
  return {'ended', status}
end
-- The attempt comes from the client, too: its entries would get ids that no begin has given out.
if f[2] ~= ARGV[1] or f[3] ~= ARGV[2] then return {'fenced'} end

local now, retention_ms = now_ms(), tonumber(ARGV[5])
local over = end_if_over(f, now, retention_ms)
if over then return {'ended', over} end
if #ARGV > 6 and first > top_seq + 1 then return {'gap', decimal(top_seq + 1)} end
local added, last = 0, #ARGV
if ARGV[4] ~= '' then last = last - 1 end
for i = 7, #ARGV do
  if first + i - 7 <= top_seq then
    if not is_written(i) then return {'conflict', decimal(first + i - 7)} end
  elseif i <= last then
    added = added + #ARGV[i]
  end
end
if added > 0 and bytes + added > tonumber(ARGV[6]) then return {'full'} end

local frame = {top_id}
for i = 7, #ARGV do
  local seq = first + i - 7
  if seq > top_seq then
    local id = ARGV[2] .. '-' .. decimal(seq)
    if i > last then
      write_end(id, held_ms(now), ARGV[4], ARGV[i], now, retention_ms)
      status = ARGV[4]
    else
      redis.call('XADD', KEYS[2], id, 'e', ARGV[i])
    end
    frame[#frame + 1] = id .. ' ' .. ARGV[i]
    top_id = id
  end
end
settle_append(f, status, added, frame, now)
return {'ok', status, top_id, decimal(bytes), decimal(bytes + added), decimal(now - tonumber(f[7])), f[4]}
