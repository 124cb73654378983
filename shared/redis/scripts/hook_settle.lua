-- Records the result of an attempt: the webhook is done, or due again later.
-- KEYS[1] record  [2] due, of its owner and host  [3] busy, of this host  [4] dead letters
-- ARGV[1] id  [2] number of the attempt  [3] '': done; or ms until the next attempt
--     [4] ms until a finished record expires  [5] result: delivered, given_up
--     [6] number max of dead letters  [7] why the attempt failed, for an operator
-- A webhook that is given up keeps what `hook_redrive` needs; the oldest dead letters leave first.
-- Returns 1, or 0: a later attempt has been made, and this result does not count.
redis.call('ZREM', KEYS[3], ARGV[1])
local f = redis.call('HMGET', KEYS[1], 'state', 'tries')
if f[1] ~= 'due' then return 0 end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('HSET', KEYS[1], 'state', 'done', 'result', ARGV[5])
  if ARGV[5] == 'given_up' then
    redis.call('HSET', KEYS[1], 'reason', ARGV[7])
    redis.call('ZADD', KEYS[4], string.format('%.0f', now), ARGV[1])
    local oldest = string.format('%.0f', now - tonumber(ARGV[4]))
    redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', oldest)
    redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -tonumber(ARGV[6]) - 1)
  else
    redis.call('HDEL', KEYS[1], 'url', 'secret', 'body', 'about')
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return 1
end
if f[2] ~= ARGV[2] then return 0 end
redis.call('ZADD', KEYS[2], string.format('%.0f', now + tonumber(ARGV[3])), ARGV[1])
return 1
