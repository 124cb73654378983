-- The holder moves a batch to its next status; to its last one together with the end of its log.
-- ARGV[1] token  [2] attempt  [3] lease ms  [4] the status it has  [5] the new one
--     [6] JSON: events, fields (field, value, …)
--     [7] '' or the status of the end, which is the last event  [8] retention ms  [9] record kept, ms
-- Returns {'ok'} | {'status', status} | {'ended'} | {'fenced'} | {'lost', id}
local refused = refusal(redis.call('HMGET', KEYS[1], 'status', 'token', 'attempt'), ARGV[1], ARGV[2])
if refused then return refused end
local status = redis.call('HGET', KEYS[5], 'status')
if status == ARGV[5] then return {'ok'} end
if status ~= ARGV[4] then return {'status', status or ''} end
local now, c = now_ms(), cjson.decode(ARGV[6])
redis.call('HSET', KEYS[5], 'status', ARGV[5], ARGV[5] .. '_at', whole(now), unpack(c.fields))
if ARGV[7] == '' then
  say(ARGV[2], c.events)
  push_lease(now, ARGV[3])
else
  say(ARGV[2], c.events, ARGV[7], now, tonumber(ARGV[8]))
  redis.call('DEL', KEYS[6], KEYS[7])
  redis.call('PEXPIRE', KEYS[5], ARGV[9])
  redis.call('PEXPIRE', KEYS[8], ARGV[9])
end
return {'ok'}
