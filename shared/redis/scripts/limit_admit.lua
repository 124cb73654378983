-- Counts a new generation of one owner, unless that would exceed a limit.
-- ARGV[1] id  [2] kind: prompt; or line, of a batch: only the tokens of the day count, and nothing is refused
--     [3] tokens, estimated  [4] ms after which the generation counts no longer
--     [5] generations max  [6] prompts a minute  [7] tokens a minute  [8] tokens a day; 0 each: no limit
-- Returns {'' or the reason, ms to wait, prompts left, ms until all are back, tokens left, ms until all
--     are back, tokens left of the day, ms until it ends, generations that count, id, …}. A refusal changes
--     nothing. The ids, only with the reason `active`, are those that have counted longest, and for at
--     least SETTLED_MS.
local STALE_MAX, SHOWN_MAX, SETTLED_MS = 100, 20, 10000
local active_max, prompts_max = tonumber(ARGV[5]), tonumber(ARGV[6])
local tokens_max, day_max = tonumber(ARGV[7]), tonumber(ARGV[8])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', decimal(now), 'LIMIT', 0, STALE_MAX)) do
  remove(id)
end

local f = redis.call('HMGET', KEYS[1], 'prompts', 'tokens', 'at', 'day', 'used', 'lines', ARGV[1])
local prompts, tokens = level(f[1], f[3], prompts_max), level(f[2], f[3], tokens_max)
local today = decimal(math.floor(now / DAY_MS))
local used = f[4] == today and tonumber(f[5]) or 0
local active = redis.call('ZCARD', KEYS[2]) - tonumber(f[6] or '0')
local reason, wait_ms, shown = '', 0, {}

if not f[7] then
  local is_prompt = ARGV[2] == 'prompt'
  if not is_prompt then
    reason = ''
  elseif active_max > 0 and active >= active_max then
    reason, wait_ms = 'active', 1000
    shown = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', decimal(now + ARGV[4] - SETTLED_MS),
      'LIMIT', 0, SHOWN_MAX)
  elseif prompts and prompts < 1 then
    reason, wait_ms = 'prompts', (1 - prompts) * MINUTE_MS / prompts_max
  elseif day_max > 0 and used >= day_max then
    reason, wait_ms = 'day', DAY_MS - now % DAY_MS
  elseif tokens and tokens < 1 then
    reason, wait_ms = 'tokens', (1 - tokens) * MINUTE_MS / tokens_max
  end
  if reason == '' then
    local spent = tonumber(ARGV[3])
    if is_prompt then
      prompts, tokens = prompts and prompts - 1, tokens and tokens - spent
      active = active + 1
      put_levels(prompts, ARGV[6], tokens, ARGV[7])
    else
      redis.call('HINCRBY', KEYS[1], 'lines', 1)
    end
    used = used + spent
    redis.call('HSET', KEYS[1], ARGV[1], decimal(spent) .. ' ' .. today .. ' ' .. ARGV[2],
      'day', today, 'used', decimal(used))
    redis.call('ZADD', KEYS[2], decimal(now + ARGV[4]), ARGV[1])
    -- Longer than a debt lasts and than anything counts. Read from the second key: Redis deletes it
    -- when it is empty, and it returns without an expiry.
    local debt_ms = tokens and math.max(0, -tokens) * MINUTE_MS / tokens_max or 0
    local kept_ms = ARGV[4] + 2 * DAY_MS + debt_ms
    if redis.call('PTTL', KEYS[2]) < kept_ms then
      redis.call('PEXPIRE', KEYS[1], decimal(kept_ms + DAY_MS))
      redis.call('PEXPIRE', KEYS[2], decimal(kept_ms + DAY_MS))
    end
  end
end

local function left(value)
  return decimal(math.max(0, math.floor(value or 0)))
end
local function reset(value, max)
  return decimal(value and (max - value) * MINUTE_MS / max or 0)
end
return {reason, decimal(math.ceil(wait_ms)), left(prompts), reset(prompts, prompts_max), left(tokens),
  reset(tokens, tokens_max), left(day_max - used), decimal(DAY_MS - now % DAY_MS),
  decimal(active), unpack(shown)}
