-- Commits results in one step: their lines are done, their objects count, the log has the events.
-- ARGV[1] token  [2] attempt  [3] lease ms  [4] the caller's newest id of the log
--     [5] JSON: name (of this commit), parts, done (lines), again (line, flight, …), dead, completed,
--     failed, usage (3 numbers), model, events, before, line and offset (0, or: the cursor moves
--     from `before` to `line`, and the lines between are done)
-- Returns {'ok', top} | {'ended'} | {'fenced'} | {'lost', id} | {'moved'}
-- A repeat returns the same.
local refused = batch_refusal(ARGV[1], ARGV[2], '')
if refused then return refused end
local c = cjson.decode(ARGV[5])
local b = redis.call('HMGET', KEYS[3], 'commit', 'line')
local _, _, top_id = top()
if b[1] == c.name then return {'ok', top_id} end
if top_id ~= ARGV[4] then return {'moved'} end
-- Each done line was in flight, or the cursor passes it now. So it counts once.
if c.line > 0 then
  if b[2] ~= decimal(c.before) then return {'moved'} end
else
  for _, line in ipairs(c.done) do
    if redis.call('HEXISTS', KEYS[4], line) == 0 then return {'moved'} end
  end
  for i = 1, #c.again, 2 do
    if redis.call('HEXISTS', KEYS[4], c.again[i]) == 0 then return {'moved'} end
  end
end
for i = 1, #c.again, 2 do redis.call('HSET', KEYS[4], c.again[i], c.again[i + 1]) end
for _, line in ipairs(c.done) do redis.call('HDEL', KEYS[4], line) end
for _, part in ipairs(c.parts) do redis.call('RPUSH', KEYS[5], part) end
for _, letter in ipairs(c.dead) do redis.call('RPUSH', KEYS[6], letter) end
redis.call('HINCRBY', KEYS[3], 'completed', decimal(c.completed))
redis.call('HINCRBY', KEYS[3], 'failed', decimal(c.failed))
redis.call('HINCRBY', KEYS[3], 'prompt_tokens', decimal(c.usage[1]))
redis.call('HINCRBY', KEYS[3], 'completion_tokens', decimal(c.usage[2]))
redis.call('HINCRBY', KEYS[3], 'total_tokens', decimal(c.usage[3]))
redis.call('HSET', KEYS[3], 'commit', c.name)
if c.model ~= '' then redis.call('HSETNX', KEYS[3], 'model', c.model) end
if c.line > 0 then
  redis.call('HSET', KEYS[3], 'line', decimal(c.line), 'offset', decimal(c.offset))
end
extend_lease(now_ms(), ARGV[3])
return {'ok', append_events(ARGV[2], c.events)}
