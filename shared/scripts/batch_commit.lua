-- The holder commits results: their lines are done, their objects count, the log says so, in one step.
-- ARGV[1] token  [2] attempt  [3] lease ms  [4] JSON: name (of this commit), parts, done (lines),
--     again (line, flight, …), dead, completed, failed, usage (3 numbers), model, events,
--     line and offset (0, or: the cursor moves here, lines and all)
-- Returns {'ok'} | {'ended'} | {'fenced'} | {'lost', id}
-- Repeated it answers the same.
local refused = refusal(redis.call('HMGET', KEYS[1], 'status', 'token', 'attempt'), ARGV[1], ARGV[2])
if refused then return refused end
local c = cjson.decode(ARGV[4])
if redis.call('HGET', KEYS[5], 'commit') == c.name then return {'ok'} end
for _, line in ipairs(c.done) do redis.call('HDEL', KEYS[6], line) end
for i = 1, #c.again, 2 do redis.call('HSET', KEYS[6], c.again[i], c.again[i + 1]) end
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
say(ARGV[2], c.events)
push_lease(now_ms(), ARGV[3])
return {'ok'}
