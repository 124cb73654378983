-- Ends a generation that is hopeless: its deadline has passed, it has waited too long for a worker, its
-- readers are gone, or its outside producer is lost. A worker ends its own; a producer may be silent.
-- KEYS[3] readers
-- ARGV[1] retention ms  [2] ms after its deadline in which a worker ends the generation itself
--     [3] ms between two looks that find a producer without a lease: Redis may have been away
-- Returns {'ok', code} | {'later', when to look again, ms; 0: never} | {'ended'} | {'absent'}
local GRACE_LOOK_MS = 1000  -- between two looks at the readers of a producer's generation
local f = redis.call('HMGET', KEYS[1], 'status', 'attempt', 'hist', 'lease', 'grace',
  'created', 'deadline', 'queue_wait', 'waiting', 'producer', 'spared')
if not f[1] then return {'absent'} end
if not is_active(f[1]) then return {'ended'} end
local now, lease, deadline = now_ms(), tonumber(f[4] or '0'), nil
if f[7] then deadline = tonumber(f[6]) + tonumber(f[7]) end

-- A worker that holds it ends it at the deadline, with the counts of its tokens. A worker of an older
-- version does not.
local is_held, has_grace = lease > now, f[5] and f[5] ~= ''
local has_worker = is_held and not f[10]
if not has_worker or (deadline and deadline + tonumber(ARGV[2]) <= now) then
  local code, message, retryable = overdue(f[6], f[7], not is_held and f[8], f[9], now)
  if code then
    close('failed', failed_json(code, message, retryable), f[2], f[3], now, tonumber(ARGV[1]))
    return {'ok', code}
  end
  if has_grace and (f[9] or f[10]) and grace_is_over(tonumber(f[5]), now) then
    close('cancelled', CANCELLED, f[2], f[3], now, tonumber(ARGV[1]))
    return {'ok', 'cancelled'}
  end
end

local again = math.huge
if f[10] then
  local free_at = math.max(lease, tonumber(f[9] or '0') + (f[9] and tonumber(f[10]) or 0))
  if free_at <= now then
    -- The first look only remembers this lease: a producer may have had no way to Redis until now.
    local spare = math.min(tonumber(f[10]), tonumber(ARGV[3]))
    local of, at = string.match(f[11] or '', '(%d+) (%d+)')
    if of ~= decimal(free_at) then
      at = decimal(now)
      redis.call('HSET', KEYS[1], 'spared', decimal(free_at) .. ' ' .. at)
    elseif tonumber(at) + spare <= now then
      close('failed', failed_json('producer_lost',
        'its producer has not written and not renewed its lease in time: ask again', 'true'),
        f[2], f[3], now, tonumber(ARGV[1]))
      return {'ok', 'producer_lost'}
    end
    free_at = tonumber(at) + spare
  end
  again = free_at
end
if deadline then
  local due = deadline
  if has_worker then due = deadline + tonumber(ARGV[2]) end
  again = math.min(again, due)
end
if f[10] and has_grace then again = math.min(again, now + GRACE_LOOK_MS) end
if f[8] then again = math.min(again, math.max(tonumber(f[9] or '0'), lease) + tonumber(f[8])) end
if again == math.huge then return {'later', '0'} end
return {'later', decimal(math.max(again, now + 1))}
