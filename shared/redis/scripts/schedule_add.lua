-- Adds a schedule, unless its owner has too many, or the same key has added one.
-- KEYS[1] record  [2] due  [3] the owner's, by age  [4] the owner's, unfinished  [5] idempotency key, or the record again
-- ARGV[1] id  [2] unfinished schedules max of an owner  [3] next due, ms  [4] '' or digest of the request
--     [5] ms until the key expires  [6..] field, value, … of the record
-- Returns {'ok', created ms} | {'full'} | {'exists', id} | {'mismatch'}
if ARGV[4] ~= '' then
  local known = redis.call('GET', KEYS[5])
  if known then
    local id, digest = string.match(known, '^(%S+) (%S+)$')
    if digest ~= ARGV[4] then return {'mismatch'} end
    return {'exists', id}
  end
end
if redis.call('SCARD', KEYS[4]) >= tonumber(ARGV[2]) then return {'full'} end
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
redis.call('HSET', KEYS[1], 'created', now, 'next', ARGV[3], unpack(ARGV, 6))
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
redis.call('ZADD', KEYS[3], now, ARGV[1])
redis.call('SADD', KEYS[4], ARGV[1])
if ARGV[4] ~= '' then redis.call('SET', KEYS[5], ARGV[1] .. ' ' .. ARGV[4], 'PX', ARGV[5]) end
return {'ok', now}
