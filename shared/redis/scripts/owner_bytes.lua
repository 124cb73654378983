-- Records the bytes of generations of one owner, and returns the total of the owner.
-- KEYS[1] hash: generation -> 'log request after', or '-' if deleted; and `total`
-- KEYS[2] zset: generation -> when its log expires, ms
-- ARGV[1] least ms until both keys expire; then five words for each generation:
--     id, bytes of its log, bytes of its request, ms until its log expires, ms from then until its
--     request expires. Bytes of the log may be '': both sizes stay as they are; '-': it is deleted
-- Returns the total without expired generations.
-- The bytes of a generation never shrink, and a deleted one stays deleted. So a call may be repeated
-- or come late, and nothing is counted twice.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local change = 0
local SPARE_MS = 60000

local function decimal(number)
  return string.format('%.0f', number)
end

local function entry(id)
  local raw = redis.call('HGET', KEYS[1], id)
  if not raw or raw == '-' then return 0, 0, 0, raw end
  local log, request, after = string.match(raw, '(%d+) (%d+) (%d+)')
  return tonumber(log), tonumber(request), tonumber(after), raw
end

local function put(id, value, until_ms)
  redis.call('HSET', KEYS[1], id, value)
  redis.call('ZADD', KEYS[2], decimal(until_ms), id)
end

for i = 2, #ARGV, 5 do
  local id, bytes, until_ms, outlives = ARGV[i], ARGV[i + 1], now + ARGV[i + 3], ARGV[i + 4]
  local log, request, _, raw = entry(id)
  if bytes == '-' then
    put(id, '-', until_ms)
    change = change - log - request
  elseif raw ~= '-' and (raw or bytes ~= '') then
    local new_log = math.max(log, tonumber(bytes) or 0)
    local new_request = math.max(request, tonumber(ARGV[i + 2]) or 0)
    put(id, decimal(new_log) .. ' ' .. decimal(new_request) .. ' ' .. outlives, until_ms)
    change = change + new_log - log + new_request - request
  end
end

local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', decimal(now), 'WITHSCORES', 'LIMIT', 0, 500)
for i = 1, #gone, 2 do
  local id, since = gone[i], tonumber(gone[i + 1])
  local log, request, outlives = entry(id)
  if outlives > 0 and request > 0 and since + outlives > now then
    put(id, '0 ' .. decimal(request) .. ' 0', since + outlives)
    change = change - log
  else
    redis.call('HDEL', KEYS[1], id)
    redis.call('ZREM', KEYS[2], id)
    change = change - log - request
  end
end

-- SPARE_MS longer, so that not every call sets the expiry. Read from the second key: Redis deletes it
-- when it is empty, and it returns without an expiry.
if #ARGV > 1 and redis.call('PTTL', KEYS[2]) < tonumber(ARGV[1]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[1] + SPARE_MS)
  redis.call('PEXPIRE', KEYS[2], ARGV[1] + SPARE_MS)
end
if change == 0 then return tonumber(redis.call('HGET', KEYS[1], 'total') or '0') end
return redis.call('HINCRBY', KEYS[1], 'total', decimal(change))
