-- Moves a batch to its next status; the last status comes together with the end of its log.
-- ARGV[1] token  [2] attempt  [3] lease ms  [4] the caller's newest id of the log
--     [5] the present status  [6] the next one  [7] JSON: events, fields (field, value, …)
--     [8] '' or the status of the end, which is the last event  [9] retention ms
--     [10] ms until the record of an ended batch expires
-- Returns {'ok', top} | {'status', status} | {'ended'} | {'fenced'} | {'lost', id} | {'moved'}
-- A repeat returns the same, except after the last status: {'ended'}.
local refused = batch_refusal(ARGV[1], ARGV[2], '')
if refused then return refused end
local status = redis.call('HGET', KEYS[3], 'status')
local _, _, top_id = top()
if status == ARGV[6] then return {'ok', top_id} end
if top_id ~= ARGV[4] then return {'moved'} end
if status ~= ARGV[5] then return {'status', status or ''} end
-- A line in flight: the holder's memory differs from Redis, so the batch cannot end.
if status ~= 'validating' and redis.call('HLEN', KEYS[4]) > 0 then return {'moved'} end
local now, c = now_ms(), cjson.decode(ARGV[7])
redis.call('HSET', KEYS[3], 'status', ARGV[6], ARGV[6] .. '_at', decimal(now), unpack(c.fields))
if ARGV[8] == '' then
  extend_lease(now, ARGV[3])
  return {'ok', append_events(ARGV[2], c.events)}
end
redis.call('DEL', KEYS[4], KEYS[5])
redis.call('PEXPIRE', KEYS[3], ARGV[10])
redis.call('PEXPIRE', KEYS[6], ARGV[10])
return {'ok', append_events(ARGV[2], c.events, ARGV[8], now, tonumber(ARGV[9]))}
