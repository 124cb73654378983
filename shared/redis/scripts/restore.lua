-- Writes entries and meta that Redis lost. The caller is a worker that still has them. It has checked
-- that the newest id that Redis reported is in its own log, and that its last accepted call is recent.
-- ARGV[1] token  [2] attempt  [3] lease ms  [4] the reported newest id  [5] number of meta fields x 2
--     then field, value, … and id, entry, …
-- Returns {'ok'} | {'ended'} | {'fenced'} | {'moved', id}
local f = redis.call('HMGET', KEYS[1], 'status', 'token', 'attempt')
local refused = refusal(f, ARGV[1], ARGV[2])
if refused and refused[1] ~= 'lost' then return refused end
local _, _, top_id = top()
if top_id ~= ARGV[4] then return {'moved', top_id} end

local fields = tonumber(ARGV[5])
if not f[1] and fields > 0 then redis.call('HSET', KEYS[1], unpack(ARGV, 6, 5 + fields)) end
redis.call('HSET', KEYS[1], 'status', 'running', 'attempt', ARGV[2], 'token', ARGV[1],
  'hist', 'lost', 'lease', decimal(now_ms() + tonumber(ARGV[3])))
redis.call('HDEL', KEYS[1], 'waiting')
for i = 6 + fields, #ARGV, 2 do
  redis.call('XADD', KEYS[2], ARGV[i], 'e', ARGV[i + 1])
  top_id = ARGV[i]
end
publish('top ' .. top_id)
return {'ok'}
