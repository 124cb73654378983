-- Makes a producer outside of the workers the holder: a new attempt, its token, its lease, its `start`.
-- ARGV[1] token  [2] '1': only if nobody has begun; '': take over, whoever holds it
--     [3] '1': the answer begins anew, so readers get `reset`  [4] retention ms
-- Returns {'ok', attempt, next seq, lease ms} | {'fenced'} | {'ended', status} | {'absent'} | {'worker'}
-- A repeat with the same token returns the same attempt.
local f = redis.call('HMGET', KEYS[1],
  'status', 'attempt', 'token', 'lease', 'hist', 'model', 'producer', 'created', 'deadline', 'begins')
local status, known, seen = f[1], f[2], f[5]
if not status then return {'absent'} end
if not is_active(status) then return {'ended', status} end
if not f[7] then return {'worker'} end
local top_attempt, top_seq, top_id = top()
if f[3] == ARGV[1] then return {'ok', known, decimal(top_seq + 1), f[7]} end
if ARGV[2] == '1' and status ~= 'queued' then return {'fenced'} end

local now, current = now_ms(), history()
local code, message, retryable = overdue(f[8], f[9], nil, nil, now)
if code then
  close('failed', failed_json(code, message, retryable), known, seen, now, tonumber(ARGV[4]))
  return {'ended', 'failed'}
end
local held = held_ms(math.min(now, tonumber(f[4] or '0')))
local attempt = decimal(next_attempt(known, top_attempt, seen, current, now))
local entries = {'{"type":"start","attempt":' .. attempt .. ',"model":' .. cjson.encode(f[6]) .. '}'}
if ARGV[3] == '1' and top_seq > 0 then entries[2] = '{"type":"reset","reason":"restarted"}' end
redis.call('HSET', KEYS[1], 'status', 'running', 'attempt', attempt, 'token', ARGV[1],
  'lease', decimal(now + tonumber(f[7])), 'hist', next_history(seen, current),
  'start', decimal(top_seq + 1), 'held_ms', decimal(held), 'held', decimal(now),
  'begins', decimal(tonumber(f[10] or '0') + 1))
redis.call('HDEL', KEYS[1], 'waiting', 'spared')
local frame = {top_id}
for i, json in ipairs(entries) do
  local id = attempt .. '-' .. decimal(top_seq + i)
  redis.call('XADD', KEYS[2], id, 'e', json)
  frame[#frame + 1] = id .. ' ' .. json
end
publish(table.concat(frame, '\n'))
return {'ok', attempt, decimal(top_seq + #entries + 1), f[7]}
