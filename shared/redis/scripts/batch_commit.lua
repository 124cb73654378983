-- The holder commits results: their lines are done, their objects count, the log says so, in one step.
-- ARGV[1] token  [2] attempt  [3] lease ms  [4] top of the log as the caller knows it
--     [5] JSON: name (of this commit), parts, done (lines), again (line, flight, …), dead, completed,
--     failed, usage (3 numbers), model, events, before, line and offset (0, or: the cursor moves
--     from `before` to `line`, and what it passes over is done)
-- Returns {'ok', top} | {'ended'} | {'fenced'} | {'lost', id} | {'moved'}
-- Repeated it answers the same.
local stopped = stop(ARGV[1], ARGV[2], '')
if stopped then return stopped end
local c = cjson.decode(ARGV[5])
local b = redis.call('HMGET', KEYS[5], 'commit', 'line')
local _, _, top_id = top()
if b[1] == c.name then return {'ok', top_id} end
if top_id ~= ARGV[4] then return {'moved'} end
-- Whatever is done here was in flight, or stands where the cursor goes now: so it counts once.
if c.line > 0 then
  if b[2] ~= whole(c.before) then return {'moved'} end
else
  for _, line in ipairs(c.done) do
    if redis.call('HEXISTS', KEYS[6], line) == 0 then return {'moved'} end
  end
  for i = 1, #c.again, 2 do
    if redis.call('HEXISTS', KEYS[6], c.again[i]) == 0 then return {'moved'} end
  end
end
for i = 1, #c.again, 2 do redis.call('HSET', KEYS[6], c.again[i], c.again[i + 1]) end
for _, line in ipairs(c.done) do redis.call('HDEL', KEYS[6], line) end
for _, part in ipairs(c.parts) do redis.call('RPUSH', KEYS[7], part) end
for _, letter in ipairs(c.dead) do redis.call('RPUSH', KEYS[8], letter) end
redis.call('HINCRBY', KEYS[5], 'completed', whole(c.completed))
redis.call('HINCRBY', KEYS[5], 'failed', whole(c.failed))
redis.call('HINCRBY', KEYS[5], 'prompt_tokens', whole(c.usage[1]))
redis.call('HINCRBY', KEYS[5], 'completion_tokens', whole(c.usage[2]))
redis.call('HINCRBY', KEYS[5], 'total_tokens', whole(c.usage[3]))
redis.call('HSET', KEYS[5], 'commit', c.name)
if c.model ~= '' then redis.call('HSETNX', KEYS[5], 'model', c.model) end
if c.line > 0 then
  redis.call('HSET', KEYS[5], 'line', whole(c.line), 'offset', whole(c.offset))
end
push_lease(now_ms(), ARGV[3])
return {'ok', say(ARGV[2], c.events)}
