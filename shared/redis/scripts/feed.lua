-- Appends the entries of a feeder, which has no numbers: they come after the newest entry. Extends the lease
-- of the producer. A repeat key that the generation has seen writes nothing.
-- KEYS[3] readers
-- ARGV[1] '' or, if the last entry is the end, its status  [2] retention ms  [3] bytes that the answer may
--     have  [4] repeat key without spaces; ''  none  [5] status of the feeder's operation; '': unchanged
--     [6..] entries, JSON
-- Returns {'ok', status, id of the top, bytes before, bytes after, age ms, lease ms} | {'repeated', status}
--     | {'queued', first token} | {'full'} | {'fenced'} | {'ended', status} | {'absent'} | {'worker'}
local REPEAT_KEYS_MAX = 32
local f = redis.call('HMGET', KEYS[1], 'status', 'token', 'attempt', 'producer', 'grace', 'hist', 'created',
  'deadline', 'bytes', 'first_token', 'repeat_keys')
local status = f[1]
if not status then return {'absent'} end
local known = f[11] or ''
if ARGV[4] ~= '' and string.find(known, ' ' .. ARGV[4] .. ' ', 1, true) then
  return {'repeated', status}
end
if not is_active(status) then return {'ended', status} end
if not f[4] then return {'worker'} end
if status == 'queued' then return {'queued', f[10] or ''} end
-- A producer that has taken over writes alone from then on.
if f[2] ~= f[10] then return {'fenced'} end

local now, retention_ms = now_ms(), tonumber(ARGV[2])
local over = end_if_over(f, now, retention_ms)
if over then return {'ended', over} end
local bytes, added, last = tonumber(f[9] or '0'), 0, #ARGV
if ARGV[1] ~= '' then last = last - 1 end
for i = 6, last do added = added + #ARGV[i] end
-- The last entries before an end always fit: the readers must learn how the operation ended.
if added > 0 and ARGV[1] == '' and bytes + added > tonumber(ARGV[3]) then return {'full'} end

local _, top_seq, top_id = top()
local frame = {top_id}
for i = 6, #ARGV do
  local id = f[3] .. '-' .. decimal(top_seq + i - 5)
  if i > last then
    write_end(id, held_ms(now), ARGV[1], ARGV[i], now, retention_ms)
    status = ARGV[1]
  else
    redis.call('XADD', KEYS[2], id, 'e', ARGV[i])
  end
  frame[#frame + 1] = id .. ' ' .. ARGV[i]
  top_id = id
end
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'operation_status', ARGV[5]) end
if ARGV[4] ~= '' then
  -- ' a b c ': the newest last. Without its first word when it is full.
  local kept = (known == '' and ' ' or known) .. ARGV[4] .. ' '
  local _, count = string.gsub(kept, ' ', '')
  if count > REPEAT_KEYS_MAX + 1 then kept = string.sub(kept, (string.find(kept, ' ', 2, true))) end
  redis.call('HSET', KEYS[1], 'repeat_keys', kept)
end
settle_append(f, status, added, frame, now)
return {'ok', status, top_id, decimal(bytes), decimal(bytes + added), decimal(now - tonumber(f[7])), f[4]}
