-- Creates a subscription, or confirms one with the same configuration.
-- KEYS[1..3] as in the prelude  [4] ids of the owner's subscriptions
-- ARGV[1] id  [2] digest of the configuration  [3] subscriptions max  [4] number of links
--     [5..] path, kind, …  then field, value, … of the record
-- Returns {'created'} | {'exists'} | {'differs'} | {'full'}
local record = load(1)
if record then return {record.hash == ARGV[2] and 'exists' or 'differs'} end
if redis.call('SCARD', KEYS[4]) >= tonumber(ARGV[3]) then return {'full'} end
local count = tonumber(ARGV[4])
for i = 5, 4 + 2 * count, 2 do
  local kinds = string.match(redis.call('HGET', KEYS[2], ARGV[i]) or '', '^%a*') or ''
  acknowledge(ARGV[i], kinds .. ARGV[i + 1], redis.call('HGET', KEYS[3], ARGV[i]) or ZERO)
end
redis.call('HSET', KEYS[1], 'hash', ARGV[2], 'generation', 0, unpack(ARGV, 5 + 2 * count))
redis.call('SADD', KEYS[4], ARGV[1])
return {'created'}
