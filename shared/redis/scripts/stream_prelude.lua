-- Common to the scripts of people's own streams. `at` is the number of a declared key. A place in a stream is the text <end>_<tag>: the number of
-- bytes before it and a digest of all entries before it, 16 digits each. The entry that ends there has the id
-- <end>-<tag>, so the order of places is the order of entries, and a place never names other bytes.
local ZERO = '0000000000000000_0000000000000000'

local function number(value) return string.format('%.0f', value) end

local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function load(at)
  local flat, fields = redis.call('HGETALL', KEYS[at]), {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  if next(fields) == nil then return nil end
  return fields
end

-- absent | live | gone: deleted or expired, but forks still read it | expired: nobody reads it
local function state_of(meta, now)
  if not meta then return 'absent' end
  if meta.gone then return 'gone' end
  if now < tonumber(meta['until']) then return 'live' end
  if tonumber(meta.refs or 0) > 0 then return 'gone' end
  return 'expired'
end

local function position(place) return tonumber(string.sub(place, 1, 16)) end

local function entry_id(place)
  return number(position(place)) .. '-' .. number(tonumber(string.sub(place, 18)))
end

-- When a stream with these fields expires, if it is used at `now`, ms. A time of its own does not move.
local function deadline(meta, now, idle_ms)
  if meta.expires then return tonumber(meta.expires) end
  if meta.ttl then return now + 1000 * tonumber(meta.ttl) end
  return now + idle_ms
end

-- Moves the end of a stream's life; not for less than a twentieth, so that most reads write nothing.
local function touch(meta, at, names_at, now, idle_ms)
  local moved = deadline(meta, now, idle_ms)
  if moved - tonumber(meta['until']) < (moved - now) / 20 then return end
  meta['until'] = number(moved)
  redis.call('HSET', KEYS[at], 'until', meta['until'])
  redis.call('ZADD', KEYS[names_at], meta['until'], meta.path)
end

-- Adds one entry, and returns the new tail. `digest` is that of the bytes.
local function add(at, tail, bytes, digest)
  local tag = string.sub(tail, 18)
  local hash = redis.sha1hex(tail .. digest)
  local place = string.format('%016.0f_%016.0f', position(tail) + #bytes, tonumber(string.sub(hash, 1, 13), 16))
  redis.call('XADD', KEYS[at], entry_id(place), 'd', bytes, 'p', tag)
  return place
end

-- Keeps the newest entries of a stream within its bounds. Returns the place before the first one that is left.
local function trim(at, meta, tail, bytes_max, entries_max)
  local start = meta.start
  local is_long = position(tail) - position(start) > bytes_max
  if not is_long and redis.call('XLEN', KEYS[at]) <= entries_max then return start end
  -- A sixteenth more than necessary, so that not every append trims.
  if is_long then
    redis.call('XTRIM', KEYS[at], 'MINID', number(position(tail) - math.floor(bytes_max * 15 / 16)))
  else
    redis.call('XTRIM', KEYS[at], 'MAXLEN', number(math.floor(entries_max * 15 / 16)))
  end
  local first = redis.call('XRANGE', KEYS[at], '-', '+', 'COUNT', 2)
  local kept = first[1]
  if position(tail) - tonumber(string.match(kept[1], '^%d+')) + #kept[2][2] > bytes_max and first[2] then
    redis.call('XDEL', KEYS[at], kept[1])
    kept = first[2]
  end
  return string.format('%016.0f_%s', tonumber(string.match(kept[1], '^%d+')) - #kept[2][2], kept[2][4])
end

-- Tells the nodes with readers: the place before, the new tail, flags (c closed, x deleted), and the bytes if short.
local function publish(channel, before, tail, flags, bytes, bytes_max)
  local has_bytes = #bytes > 0 and #bytes <= bytes_max
  redis.call('PUBLISH', channel, before .. ' ' .. tail .. ' ' .. flags .. (has_bytes and 'd' or '-') .. '\n'
    .. (has_bytes and bytes or ''))
end
