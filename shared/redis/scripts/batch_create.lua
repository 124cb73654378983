-- Creates the record of a batch and the meta of its log, in one step.
-- KEYS[1] meta  [2] record
-- ARGV[1] ms until its window ends  [2] number of words for meta: field, value, …
--     then field, value, … of the record
-- Returns {'ok', created ms} | {'exists', created ms}
local known = redis.call('HGET', KEYS[2], 'created')
if known or redis.call('EXISTS', KEYS[1]) == 1 then return {'exists', known or '0'} end
local now, words = now_ms(), tonumber(ARGV[2])
redis.call('HSET', KEYS[1], 'status', 'queued', 'attempt', '0', 'failures', '0', 'lease', '0',
  'hist', history() or 'lost', 'created', decimal(now), 'waiting', decimal(now), unpack(ARGV, 3, 2 + words))
redis.call('HSET', KEYS[2], 'status', 'validating', 'created', decimal(now),
  'expires', decimal(now + tonumber(ARGV[1])), 'total', '0', 'completed', '0', 'failed', '0',
  'line', '0', 'offset', '0', unpack(ARGV, 3 + words))
return {'ok', decimal(now)}
