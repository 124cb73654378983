-- Ends a generation that has no worker and is hopeless: its deadline has passed, it has waited too long
-- for a worker, or its readers are gone.
-- KEYS[3] readers
-- ARGV[1] retention ms  [2] ms after its deadline in which a worker ends the generation itself
-- Returns {'ok', code} | {'later', when to look again, ms; 0: never} | {'ended'} | {'absent'}
local f = redis.call('HMGET', KEYS[1], 'status', 'attempt', 'hist', 'lease', 'grace',
  'created', 'deadline', 'queue_wait', 'waiting')
if not f[1] then return {'absent'} end
if not is_active(f[1]) then return {'ended'} end
local now, lease, deadline = now_ms(), tonumber(f[4] or '0'), nil
if f[7] then deadline = tonumber(f[6]) + tonumber(f[7]) end

-- A worker that holds it ends it at the deadline, with the counts of its tokens. A worker of an older
-- version does not.
local is_held = lease > now
if not is_held or (deadline and deadline + tonumber(ARGV[2]) <= now) then
  local code, message, retryable = overdue(f[6], f[7], f[8], f[9], now)
  if code then
    close('failed', failed_json(code, message, retryable), f[2], f[3], now, tonumber(ARGV[1]))
    return {'ok', code}
  end
  if f[5] and f[5] ~= '' and f[9] and grace_is_over(tonumber(f[5]), now) then
    close('cancelled', CANCELLED, f[2], f[3], now, tonumber(ARGV[1]))
    return {'ok', 'cancelled'}
  end
end

local again = math.huge
if deadline then
  again = deadline
  if is_held then again = deadline + tonumber(ARGV[2]) end
end
if f[8] then again = math.min(again, math.max(tonumber(f[9] or '0'), lease) + tonumber(f[8])) end
if again == math.huge then return {'later', '0'} end
return {'later', decimal(math.max(again, now + 1))}
