-- The record of what one owner uses; it goes before limit_admit, limit_extend and
-- limit_settle.
-- KEYS[1] hash: generation -> 'tokens day kind', for those that have not ended; and
--     prompts, tokens: what the buckets held at `at`, ms; below 0: owed
--     prompts_max, tokens_max: the limits of a minute at that time
--     day, used: days since 1970, and the tokens of that day
--     lines: how many of the generations are lines of batches
-- KEYS[2] zset: the same generations -> when they stop to count, ms
-- A generation counts from its entry to its removal, once each. So both calls may be repeated.
local MINUTE_MS, DAY_MS = 60000, 86400000
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function decimal(number)
  return string.format('%.0f', number)
end

-- Returns what a bucket holds now, with `max` a minute; nil: there is no such limit.
local function level(stored, at, max)
  if max == 0 then return nil end
  if not stored then return max end
  return math.min(max, tonumber(stored) + (now - tonumber(at)) * max / MINUTE_MS)
end

local function put_levels(prompts, prompts_max, tokens, tokens_max)
  redis.call('HSET', KEYS[1], 'at', decimal(now), 'prompts_max', prompts_max, 'tokens_max', tokens_max)
  if prompts then redis.call('HSET', KEYS[1], 'prompts', string.format('%.3f', prompts)) end
  if tokens then redis.call('HSET', KEYS[1], 'tokens', string.format('%.3f', tokens)) end
end

-- Removes a generation. Returns its tokens, day and kind; nil: it does not count.
local function remove(id)
  local entry = redis.call('HGET', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
  if not entry then return nil end
  redis.call('HDEL', KEYS[1], id)
  local tokens, day, kind = string.match(entry, '(%d+) (%d+) (%a+)')
  if kind == 'line' then redis.call('HINCRBY', KEYS[1], 'lines', -1) end
  return tonumber(tokens), day, kind
end
