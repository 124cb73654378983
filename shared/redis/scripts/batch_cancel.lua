-- Requests the end of a batch from outside its holder, which notices within half a second.
-- KEYS[1] record
-- Returns {'ok', the status afterwards} | {'absent'}
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return {'absent'} end
if status == 'validating' or status == 'in_progress' or status == 'finalizing' then
  status = 'cancelling'
  redis.call('HSET', KEYS[1], 'status', status, 'cancelling_at', decimal(now_ms()))
end
return {'ok', status}
