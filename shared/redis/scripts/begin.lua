-- Makes the caller the holder: a new attempt, its token, its lease and its `start`, in one step.
-- With ARGV[9] the caller appends `start` itself, before everything else, because `start` names the
-- backend that writes the attempt.
-- KEYS[3] readers
-- ARGV[1] token  [2] lease ms  [3] worker  [4] quiet until, ms: no takeover before this time
--     [5] forgive until, ms: a lease that expired before this time counts as no failure
--     [6] attempts max  [7] retention ms  [8] '1': the generation ends if its worker is lost
--     [9] '1': do not write `start`
-- Returns {'ok', attempt, seq of start, failures, start's JSON or '', fields…} | {'held', ms to wait} | {'ended'} | {'absent'}
-- A repeat with the same token returns the same attempt.
local f = redis.call('HMGET', KEYS[1],
  'status', 'attempt', 'token', 'lease', 'hist', 'failures', 'grace', 'model', 'start',
  'created', 'deadline', 'queue_wait', 'waiting', 'worker', 'begins', 'producer')
local status, known, token, seen = f[1], f[2], f[3], f[5]
if not status then return {'absent'} end
if not is_active(status) then return {'ended'} end
if f[16] then return {'absent'} end  -- a producer outside of the workers writes it
if token == ARGV[1] then
  local id = known .. '-' .. f[9]
  local entry = redis.call('XRANGE', KEYS[2], id, id)[1]
  local json = entry and entry[2][2] or ''
  return {'ok', known, f[9], f[6], json, unpack(redis.call('HGETALL', KEYS[1]))}
end

local now, lease, retention_ms = now_ms(), tonumber(f[4] or '0'), tonumber(ARGV[7])
local current = history()
local failures = tonumber(f[6] or '0')
local lapsed = token and token ~= ''
if lapsed then
  -- After a change of history, wait one lease more: a living holder may have to restore first.
  local free_at = lease
  if current and seen ~= 'lost' and seen ~= current then free_at = lease + tonumber(ARGV[2]) end
  free_at = math.max(free_at, tonumber(ARGV[4]))
  if free_at > now then return {'held', decimal(free_at - now)} end
  local is_counted = lease > tonumber(ARGV[5]) and (not current or seen == current or seen == 'lost')
  if is_counted then failures = failures + 1 end
end

if f[7] and f[7] ~= '' and grace_is_over(tonumber(f[7]), now) then
  close('cancelled', CANCELLED, known, seen, now, retention_ms)
  return {'ended'}
end
local function fail(code, message, retryable)
  close('failed', failed_json(code, message, retryable), known, seen, now, retention_ms)
  return {'ended'}
end
local code, message, retryable = overdue(f[10], f[11], f[12], f[13], now)
if code then return fail(code, message, retryable) end
if lapsed and ARGV[8] == '1' then
  return fail('worker_lost', 'the worker was lost and this model cannot go on: ask again', 'true')
end
if failures >= tonumber(ARGV[6]) then
  return fail('attempts_exhausted', 'given up after ' .. decimal(failures) .. ' failures; the last: the worker was lost', 'false')
end

local held = held_ms(math.min(now, lease))
local top_attempt, top_seq, top_id = top()
local attempt = decimal(next_attempt(known, top_attempt, seen, current, now))
local seq = decimal(top_seq + 1)
local json = ''
if ARGV[9] ~= '1' then
  json = '{"type":"start","attempt":' .. attempt .. ',"model":' .. cjson.encode(f[8]) .. '}'
end
redis.call('HSET', KEYS[1], 'status', 'running', 'attempt', attempt, 'token', ARGV[1],
  'lease', decimal(now + tonumber(ARGV[2])), 'hist', next_history(seen, current),
  'failures', decimal(failures), 'start', seq, 'worker', ARGV[3],
  'held_ms', decimal(held), 'held', decimal(now), 'begins', decimal(tonumber(f[15] or '0') + 1),
  'waited', decimal(math.max(0, now - math.max(tonumber(f[13] or '0'), lease))))
redis.call('HDEL', KEYS[1], 'waiting', 'taken_from')
-- The worker whose lease has run out, with its attempt: nobody else can tell of its end.
if lapsed then redis.call('HSET', KEYS[1], 'taken_from', known .. ' ' .. (f[14] or '')) end
if json ~= '' then
  redis.call('XADD', KEYS[2], attempt .. '-' .. seq, 'e', json)
  publish(top_id .. '\n' .. attempt .. '-' .. seq .. ' ' .. json)
end
return {'ok', attempt, seq, decimal(failures), json, unpack(redis.call('HGETALL', KEYS[1]))}
