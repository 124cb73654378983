-- Links streams to a subscription, or ends such links, or deletes the subscription.
-- KEYS[1..3] as in the prelude  [4] ids of the owner's subscriptions
-- ARGV[1] 'add' | 'remove' explicit links | 'forget' any link | 'delete'  [2] id  [3] links max  [4..] paths
-- Returns {'ok'} | {'absent'} | {'full'}
local record = load(1)
if not record then return {'absent'} end
if ARGV[1] == 'delete' then
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('SREM', KEYS[4], ARGV[2])
  return {'ok'}
end
for i = 4, #ARGV do
  local kinds, acked = string.match(redis.call('HGET', KEYS[2], ARGV[i]) or '', '^(%a*) (.*)$')
  if ARGV[1] == 'add' and not kinds then
    if redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[3]) then return {'full'} end
    acknowledge(ARGV[i], 'e', redis.call('HGET', KEYS[3], ARGV[i]) or ZERO)
  elseif ARGV[1] == 'add' and not string.find(kinds, 'e') then
    acknowledge(ARGV[i], 'e' .. kinds, acked)
  elseif kinds and (ARGV[1] == 'forget' or kinds == 'e') then
    redis.call('HDEL', KEYS[2], ARGV[i])
  elseif kinds and ARGV[1] == 'remove' then
    acknowledge(ARGV[i], (string.gsub(kinds, 'e', '')), acked)
  end
end
return {'ok'}
