-- Asks for the end of a batch, from outside its holder, who sees it within half a second.
-- KEYS[5] record
-- Returns {'ok', the status that it has now} | {'absent'}
local status = redis.call('HGET', KEYS[5], 'status')
if not status then return {'absent'} end
if status == 'validating' or status == 'in_progress' or status == 'finalizing' then
  status = 'cancelling'
  redis.call('HSET', KEYS[5], 'status', status, 'cancelling_at', whole(now_ms()))
end
return {'ok', status}
