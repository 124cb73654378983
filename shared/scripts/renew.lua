-- Pushes a holder's lease on; cancels where the readers' grace is over.
-- ARGV[1] token  [2] attempt  [3] lease ms  [4] retention ms
-- Returns {'ok'} | {'ended'} | {'fenced'} | {'lost', id}
local f = redis.call('HMGET', KEYS[1], 'status', 'token', 'attempt', 'grace', 'hist')
if not f[1] then
  local _, _, top_id = top()
  return {'lost', top_id}
end
if not is_active(f[1]) then return {'ended'} end
if f[2] ~= ARGV[1] then
  if tonumber(f[3] or '0') >= tonumber(ARGV[2]) then return {'fenced'} end
  local _, _, top_id = top()
  return {'lost', top_id}
end
local now = now_ms()
if f[4] and f[4] ~= '' and grace_is_over(tonumber(f[4]), now) then
  close('cancelled', CANCELLED, f[3], f[5], now, tonumber(ARGV[4]))
  return {'ended'}
end
redis.call('HSET', KEYS[1], 'lease', whole(now + tonumber(ARGV[3])))
return {'ok'}
