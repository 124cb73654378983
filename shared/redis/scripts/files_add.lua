-- Adds files to the count of one owner. Counted files do not change.
-- KEYS[1] expiries of the owner's files  [2] their sizes, and `sum`
-- ARGV[1] '' or, to start a count if there is none, ms until it expires
--     [2] bytes max of all files  [3] number max of files; '' each: no bound
--     [4..] id, bytes, expires ms, …
-- Returns 1; 0: a bound would be exceeded, and nothing was added; -1: there is no count.
local sum = redis.call('HGET', KEYS[2], 'sum')
if not sum then
  if ARGV[1] == '' then return -1 end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[2], 'sum', '0')
  redis.call('PEXPIRE', KEYS[2], ARGV[1])
  sum = '0'
end
local fresh, bytes = {}, 0
for i = 4, #ARGV, 3 do
  if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 0 then
    fresh[#fresh + 1] = i
    bytes = bytes + tonumber(ARGV[i + 1])
  end
end
if ARGV[2] ~= '' and #fresh > 0 then
  if tonumber(sum) + bytes > tonumber(ARGV[2]) then return 0 end
  if redis.call('HLEN', KEYS[2]) - 1 + #fresh > tonumber(ARGV[3]) then return 0 end
end
for _, i in ipairs(fresh) do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  redis.call('ZADD', KEYS[1], ARGV[i + 2], ARGV[i])
end
redis.call('HINCRBY', KEYS[2], 'sum', string.format('%.0f', bytes))
local left = redis.call('PTTL', KEYS[2])
if left > 0 then redis.call('PEXPIRE', KEYS[1], left) end
return 1
