-- The functions of the scripts that know the readers of a generation (grace). They follow the prelude.
-- KEYS[#KEYS] readers: node -> until when its readers count, ms. The key expires by itself, so the
-- scripts that write an end need not declare it.

local CANCELLED = '{"type":"end","status":"cancelled","finish_reason":"cancelled"}'
local READERS_FRESH_MS = 6000
-- Much longer than between two renewals. A generation that waits in the queue for longer has lost the
-- record of its readers, and counts as one with a reader to come.
local READERS_KEPT_MS = 600000

local function keep_readers(grace_ms)
  redis.call('PEXPIRE', KEYS[#KEYS], decimal(READERS_KEPT_MS + grace_ms))
end

-- Whether all readers have been gone for longer than the grace. A missing key counts as a reader to
-- come ('-').
local function grace_is_over(grace_ms, now)
  local last = redis.call('ZREVRANGE', KEYS[#KEYS], 0, 0, 'WITHSCORES')
  if not last[1] then
    redis.call('ZADD', KEYS[#KEYS], decimal(now + READERS_FRESH_MS + grace_ms), '-')
  end
  keep_readers(grace_ms)
  return last[1] and tonumber(last[2]) < now
end
