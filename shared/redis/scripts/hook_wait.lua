-- Plans a check whether the subject of a webhook has ended. The checks of one owner are spaced, so
-- that an owner with very many waiting webhooks does not delay the others.
-- KEYS[1] record  [2] waiting  [3] time of the last planned check of this owner, string
-- ARGV[1] id  [2] NX: it is new, XX: it waits already  [3] least ms until the check
--     [4] ms between two checks of this owner  [5] ms until an unchanged record expires
--     [6..] field, value, … of the record
-- Returns 1, or 0: the planned check stays as it was.
if #ARGV > 5 then redis.call('HSET', KEYS[1], unpack(ARGV, 6)) end
if ARGV[2] == 'NX' then
  redis.call('HSETNX', KEYS[1], 'state', 'waiting')
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
local is_waiting = redis.call('ZSCORE', KEYS[2], ARGV[1])
if (ARGV[2] == 'NX') == (is_waiting and true or false) then return 0 end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local at = now + tonumber(ARGV[3])
local last = redis.call('GET', KEYS[3])
if last then at = math.max(at, tonumber(last) + tonumber(ARGV[4])) end
redis.call('SET', KEYS[3], string.format('%.0f', at), 'PX', string.format('%.0f', at - now + 60000))
redis.call('ZADD', KEYS[2], string.format('%.0f', at), ARGV[1])
return 1
