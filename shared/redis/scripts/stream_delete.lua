-- Deletes a stream, or only hides it while forks read it; and deletes hidden streams that no fork reads any more.
-- KEYS[1] names of the owner  [2] sums of the owner  [3] their tails  then of the stream and of each stream from which it was
--     forked, the nearest first: meta, entries, producers
-- ARGV[1] '1' only if it has expired  [2] parents as they were read, JSON  [3] live channel
-- Returns {'deleted', path} | {'hidden', path} | {'gone'} | {'absent'} | {'live'} | {'changed'}
local function remove(at, meta)
  redis.call('DEL', KEYS[at], KEYS[at + 1], KEYS[at + 2])
  redis.call('ZREM', KEYS[1], meta.path)
  redis.call('HDEL', KEYS[3], meta.path)
  redis.call('HINCRBY', KEYS[2], 'bytes', number(position(meta.start) - position(meta.tail)))
  if redis.call('ZCARD', KEYS[1]) == 0 then redis.call('DEL', KEYS[2]) end
end

local now = clock()
local meta = load(4)
local state = state_of(meta, now)
if state == 'absent' then return {'absent'} end
if meta.parents ~= ARGV[2] then return {'changed'} end
if ARGV[1] == '1' then
  if state == 'live' then return {'live'} end
  if state == 'gone' then
    -- Its forks keep it; it has no time of its own any more.
    redis.call('HSET', KEYS[4], 'gone', '1')
    redis.call('ZADD', KEYS[1], '9007199254740991', meta.path)
    return {'gone'}
  end
elseif state == 'gone' then
  return {'gone'}
end
local is_asked = state == 'live'
publish(ARGV[3], ZERO, ZERO, 'x', '', 0)
if tonumber(meta.refs or 0) > 0 then
  redis.call('HSET', KEYS[4], 'gone', '1')
  redis.call('ZADD', KEYS[1], '9007199254740991', meta.path)
  return {'hidden', meta.path}
end
remove(4, meta)
for at = 7, #KEYS, 3 do
  local parent = load(at)
  if not parent then break end
  local refs = tonumber(redis.call('HINCRBY', KEYS[at], 'refs', -1))
  parent.refs = number(refs)
  local parent_state = state_of(parent, now)
  if refs > 0 or (not parent.gone and parent_state ~= 'expired') then break end
  remove(at, parent)
end
return {is_asked and 'deleted' or 'absent', meta.path}
