-- What every script on one {id} starts from. Numbers of ours stay below 2^53 and are written with
-- %.0f, so that Lua's doubles never turn a time or an attempt into 1.7e+12.
-- KEYS[1] meta   KEYS[2] log   KEYS[3] live channel   KEYS[4] readers (grace)

local function whole(number)
  return string.format('%.0f', number)
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- The top of the log: attempt, seq, id; 0, 0, '0-0' of an empty one.
local function top()
  local entry = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  if not entry then return 0, 0, '0-0' end
  local attempt, seq = string.match(entry[1], '(%d+)-(%d+)')
  return tonumber(attempt), tonumber(seq), entry[1]
end

-- Redis's own history: changes when it may have forgotten something. nil where it cannot be read.
local function history()
  local ok, info = pcall(redis.call, 'INFO', 'replication')
  if not ok or type(info) ~= 'string' then return nil end
  return string.match(info, 'master_replid:(%w+)')
end

local function is_active(status)
  return status == 'queued' or status == 'running'
end

-- Why a caller that believes to be the holder may not write; nil: it is the holder.
-- `f` is status, token and attempt as meta has them.
local function refusal(f, token, attempt)
  if f[1] and not is_active(f[1]) then return {'ended'} end
  if f[1] and f[2] == token then return nil end
  if f[1] and tonumber(f[3] or '0') >= tonumber(attempt) then return {'fenced'} end
  local _, _, top_id = top()
  return {'lost', top_id}
end

-- An attempt number that nobody has been given: one up, and past the clock where Redis may have
-- forgotten that it gave one out.
local function next_attempt(known, top_attempt, seen_history, current_history, now)
  local attempt = math.max(tonumber(known or '0'), top_attempt) + 1
  if not current_history or seen_history ~= current_history then
    attempt = math.max(attempt, now)
  end
  return attempt
end

-- 'lost' stays: a loss once seen makes every later attempt jump.
local function next_history(seen_history, current_history)
  if not current_history or seen_history == 'lost' then return 'lost' end
  return current_history
end

-- Writes the one end, whoever calls: entry, status and times to live in one step.
local function write_end(id, before_id, status, json, now, retention_ms)
  redis.call('XADD', KEYS[2], id, 'e', json)
  redis.call('HSET', KEYS[1], 'status', status, 'token', '', 'end', json, 'ended', whole(now),
    'lease', '0')
  redis.call('HDEL', KEYS[1], 'waiting')
  redis.call('PEXPIRE', KEYS[2], retention_ms)
  redis.call('PEXPIRE', KEYS[1], retention_ms * 2)
  redis.call('PEXPIRE', KEYS[4], retention_ms)
end

-- An end from outside the holder, under an attempt number of its own.
local function close(status, json, known, seen_history, now, retention_ms)
  local top_attempt, top_seq, top_id = top()
  local current = history()
  local attempt = next_attempt(known, top_attempt, seen_history, current, now)
  local id = whole(attempt) .. '-' .. whole(top_seq + 1)
  redis.call('HSET', KEYS[1], 'attempt', whole(attempt), 'token', '',
    'hist', next_history(seen_history, current))
  write_end(id, top_id, status, json, now, retention_ms)
  redis.call('PUBLISH', KEYS[3], top_id .. '\n' .. id .. ' ' .. json)
  return id
end

-- Grace: whether every reader has been gone for long enough. A missing key is taken for a reader
-- that is about to come, never for nobody.
local READERS_FRESH_MS = 6000
local function grace_is_over(grace_ms, now)
  local last = redis.call('ZREVRANGE', KEYS[4], 0, 0, 'WITHSCORES')
  if not last[1] then
    redis.call('ZADD', KEYS[4], whole(now + READERS_FRESH_MS + grace_ms), '-')
    return false
  end
  return tonumber(last[2]) < now
end
local CANCELLED = '{"type":"end","status":"cancelled","finish_reason":"cancelled"}'
