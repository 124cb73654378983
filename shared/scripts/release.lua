-- Gives a generation back: the next holder need not wait for the lease.
-- ARGV[1] token  [2] attempt  [3] '1': this attempt failed
-- Returns {'ok', failures} | {'ended'} | {'fenced'} | {'lost', id}
local f = redis.call('HMGET', KEYS[1], 'status', 'token', 'attempt')
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
local failures = redis.call('HINCRBY', KEYS[1], 'failures', ARGV[3])
redis.call('HSET', KEYS[1], 'token', '', 'lease', '0', 'waiting', whole(now_ms()))
return {'ok', whole(failures)}
