-- The holder moves a batch to its next status; to its last one together with the end of its log.
-- ARGV[1] token  [2] attempt  [3] lease ms  [4] top of the log as the caller knows it
--     [5] the status it has  [6] the new one  [7] JSON: events, fields (field, value, …)
--     [8] '' or the status of the end, which is the last event  [9] retention ms  [10] record kept, ms
-- Returns {'ok', top} | {'status', status} | {'ended'} | {'fenced'} | {'lost', id} | {'moved'}
-- Repeated it answers the same, but for the last one: {'ended'}.
local stopped = stop(ARGV[1], ARGV[2], '')
if stopped then return stopped end
local status = redis.call('HGET', KEYS[5], 'status')
local _, _, top_id = top()
if status == ARGV[6] then return {'ok', top_id} end
if top_id ~= ARGV[4] then return {'moved'} end
if status ~= ARGV[5] then return {'status', status or ''} end
-- With a line in flight nothing is over: the holder's memory is not what stands here.
if status ~= 'validating' and redis.call('HLEN', KEYS[6]) > 0 then return {'moved'} end
local now, c = now_ms(), cjson.decode(ARGV[7])
redis.call('HSET', KEYS[5], 'status', ARGV[6], ARGV[6] .. '_at', whole(now), unpack(c.fields))
if ARGV[8] == '' then
  push_lease(now, ARGV[3])
  return {'ok', say(ARGV[2], c.events)}
end
redis.call('DEL', KEYS[6], KEYS[7])
redis.call('PEXPIRE', KEYS[5], ARGV[10])
redis.call('PEXPIRE', KEYS[8], ARGV[10])
return {'ok', say(ARGV[2], c.events, ARGV[8], now, tonumber(ARGV[9]))}
