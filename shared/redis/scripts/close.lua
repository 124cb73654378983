-- Ends a generation from outside its holder: cancel, queue timeout.
-- ARGV[1] status  [2] the end's JSON  [3] retention ms
--     [4] '' or: end it only if no worker has held it for this many ms
--     [5] '' or who asked for it
-- Returns {'ok', id} | {'ended'} | {'absent'} | {'held'}
local f = redis.call('HMGET', KEYS[1], 'status', 'attempt', 'hist', 'lease', 'waiting')
if not f[1] then return {'absent'} end
if not is_active(f[1]) then return {'ended'} end
local now = now_ms()
if ARGV[4] ~= '' then
  local idle_since = math.max(tonumber(f[4] or '0'), tonumber(f[5] or '0'))
  if idle_since + tonumber(ARGV[4]) > now then return {'held'} end
end
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'by', ARGV[5]) end
return {'ok', close(ARGV[1], ARGV[2], f[2], f[3], now, tonumber(ARGV[3]))}
