-- Extends the lease of a holder; cancels the generation if its grace is over.
-- KEYS[3] readers, if the generation has a grace
-- ARGV[1] token  [2] attempt  [3] lease ms  [4] retention ms  [5] '' or the usage of a cancel, JSON
-- Returns {'ok'} | {'ended'} | {'fenced'} | {'lost', id}
local f = redis.call('HMGET', KEYS[1], 'status', 'token', 'attempt', 'grace', 'hist')
local refused = refusal(f, ARGV[1], ARGV[2])
if refused then return refused end
local now = now_ms()
if f[4] and f[4] ~= '' and grace_is_over(tonumber(f[4]), now) then
  local json = CANCELLED
  if ARGV[5] ~= '' then json = string.sub(json, 1, -2) .. ',"usage":' .. ARGV[5] .. '}' end
  close('cancelled', json, f[3], f[5], now, tonumber(ARGV[4]))
  return {'ended'}
end
redis.call('HSET', KEYS[1], 'lease', decimal(now + tonumber(ARGV[3])))
return {'ok'}
