-- The functions that every script on one {id} uses. Our numbers stay below 2^53 and are written with
-- %.0f, because Lua would write a time or an attempt as 1.7e+12.
-- KEYS[1] meta   KEYS[2] log
-- A script touches no key that its caller has not declared. While a cluster migrates a slot, the old
-- server refuses such a key in the middle of the script, and the new one takes it for absent.
-- The live channel is no key: a declared channel would count as a key that is missing.

local function decimal(number)
  return string.format('%.0f', number)
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Returns attempt, seq and id of the newest entry; 0, 0, '0-0' if the log is empty.
local function top()
  local entry = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  if not entry then return 0, 0, '0-0' end
  local attempt, seq = string.match(entry[1], '(%d+)-(%d+)')
  return tonumber(attempt), tonumber(seq), entry[1]
end

-- Returns the id of Redis's own history, which changes when Redis may have lost data; nil: unknown.
-- In a cluster each shard has its own history, so it also changes when the slot moves. Then the
-- shard's epoch is a part of it: the epoch rises when a slot comes. Without the epoch, a slot that
-- left and came back would find the history that its generation remembers, although the shard that
-- had the slot meanwhile may have lost an attempt.
-- The loader writes true here for a cluster.
local IS_SHARDED = false
local function history()
  local ok, info = pcall(redis.call, 'INFO', 'replication')
  if not ok or type(info) ~= 'string' then return nil end
  local replid = string.match(info, 'master_replid:(%w+)')
  if not IS_SHARDED or not replid then return replid end
  ok, info = pcall(redis.call, 'CLUSTER', 'INFO')
  if not ok or type(info) ~= 'string' then return replid end
  return replid .. ':' .. (string.match(info, 'cluster_my_epoch:(%d+)') or '')
end

local function is_active(status)
  return status == 'queued' or status == 'running'
end

-- Returns why the caller may not write as the holder; nil: it is the holder.
-- `f`: status, token and attempt from meta.
local function refusal(f, token, attempt)
  if f[1] and not is_active(f[1]) then return {'ended'} end
  if f[1] and f[2] == token then return nil end
  if f[1] and tonumber(f[3] or '0') >= tonumber(attempt) then return {'fenced'} end
  local _, _, top_id = top()
  return {'lost', top_id}
end

-- Returns an unused attempt number: one higher, and at least the clock if Redis may have lost one.
local function next_attempt(known, top_attempt, seen_history, current_history, now)
  local attempt = math.max(tonumber(known or '0'), top_attempt) + 1
  if not current_history or seen_history ~= current_history then
    attempt = math.max(attempt, now)
  end
  return attempt
end

-- 'lost' stays: after a known loss every later attempt jumps to the clock.
local function next_history(seen_history, current_history)
  if not current_history or seen_history == 'lost' then return 'lost' end
  return current_history
end

-- Publishes a frame on the live channel tr:{id}:live, whose name is that of meta with another end.
-- For a cluster the loader writes SPUBLISH here: there a PUBLISH goes to every server.
local function publish(frame)
  redis.call('PUBLISH', string.sub(KEYS[1], 1, -5) .. 'live', frame)
end

-- Returns for how long workers have held the generation, ms, if its present holder stops at `at`.
local function held_ms(at)
  local f = redis.call('HMGET', KEYS[1], 'held_ms', 'held', 'token')
  local sum = tonumber(f[1] or '0') or 0
  local since = tonumber(f[2] or '')
  if not since or not f[3] or f[3] == '' then return sum end
  return sum + math.max(0, at - since)
end

-- Writes the end: the entry, the status and the expiry, in one step.
local function write_end(id, held, status, json, now, retention_ms)
  redis.call('XADD', KEYS[2], id, 'e', json)
  redis.call('HSET', KEYS[1], 'status', status, 'token', '', 'end', json, 'ended', decimal(now),
    'lease', '0', 'held_ms', decimal(held))
  redis.call('HDEL', KEYS[1], 'waiting', 'held')
  redis.call('PEXPIRE', KEYS[2], retention_ms)
  redis.call('PEXPIRE', KEYS[1], retention_ms * 2)
end

-- Writes an end from outside the holder, under a new attempt number.
local function close(status, json, known, seen_history, now, retention_ms)
  local top_attempt, top_seq, top_id = top()
  local current = history()
  local attempt = next_attempt(known, top_attempt, seen_history, current, now)
  local id = decimal(attempt) .. '-' .. decimal(top_seq + 1)
  -- A holder that has lost its lease may be dead: it counts until then. `cut`: the last attempt of a
  -- worker, which may still report what it took (spend.lua).
  local lease = tonumber(redis.call('HGET', KEYS[1], 'lease') or '0')
  local held = held_ms(math.min(now, lease))
  redis.call('HSET', KEYS[1], 'attempt', decimal(attempt), 'token', '', 'cut', known or '0',
    'hist', next_history(seen_history, current))
  write_end(id, held, status, json, now, retention_ms)
  publish(top_id .. '\n' .. id .. ' ' .. json)
  return id
end
