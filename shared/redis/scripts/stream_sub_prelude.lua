-- Common to the scripts of subscriptions. KEYS[1] record  [2] links: path -> "<e, g or eg> <acknowledged offset>"
--     [3] tails of the owner's streams: path -> tail
-- A wake tells a worker of work once. It ends when the worker is done, or when its lease has run out.

-- Returns all links as {path, kinds, acked, tail}, and the first path with unread entries or ''.
local function links_of()
  local flat, links, first = redis.call('HGETALL', KEYS[2]), {}, ''
  for i = 1, #flat, 2 do
    local kinds, acked = string.match(flat[i + 1], '^(%a*) (.*)$')
    local tail = redis.call('HGET', KEYS[3], flat[i]) or ZERO
    links[#links + 1] = {flat[i], kinds, acked, tail}
    if first == '' and tail > acked then first = flat[i] end
  end
  return links, first
end

local function clear(record)
  record.wake_id, record.holder, record['until'], record.snapshot = nil, nil, nil, nil
  redis.call('HDEL', KEYS[1], 'wake_id', 'holder', 'until', 'snapshot', 'delivered')
end

-- Whether a wake runs; one whose lease has run out is cleared.
local function is_awake(record, now)
  if not record.wake_id then return false end
  if not record['until'] or now < tonumber(record['until']) then return true end
  clear(record)
  return false
end

local function lease(record, now)
  record['until'] = number(now + tonumber(record.lease_ms))
  redis.call('HSET', KEYS[1], 'until', record['until'])
end

-- Begins a wake. Of a webhook its lease begins now, of pull-wake with the claim.
local function begin_wake(record, links, wake_id, now)
  local snapshot = {}
  for _, link in ipairs(links) do snapshot[link[1]] = link[4] end
  record.wake_id = wake_id
  record.generation = number(redis.call('HINCRBY', KEYS[1], 'generation', 1))
  redis.call('HSET', KEYS[1], 'wake_id', wake_id, 'snapshot', cjson.encode(snapshot))
  if record.type == 'webhook' then lease(record, now) end
end

-- Sets an acknowledged offset.
local function acknowledge(path, kinds, offset)
  redis.call('HSET', KEYS[2], path, kinds .. ' ' .. offset)
end
