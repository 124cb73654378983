-- Adds moments to the timeline of a generation, and lets the timeline expire with the log.
-- KEYS[1] meta  [2] log  [3] timeline
-- ARGV[1] ms for which the timeline of an unfinished generation is kept  [2] moments max
--     then for each moment its time and its JSON. The time is Redis's clock, ms; or, if it is 0 or
--     below, minus the age of the moment, ms
-- Returns 1; 0: the generation is absent, deleted or expired, and nothing is written
local status = redis.call('HGET', KEYS[1], 'status')
local kept_ms = redis.call('PTTL', KEYS[2])
if kept_ms < 0 then
  -- A log expires after its end only. A queued generation has none before its first begin, and a
  -- deleted one has none any more.
  if status ~= 'queued' and status ~= 'running' then return 0 end
  kept_ms = tonumber(ARGV[1])
end
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000
for i = 3, #ARGV, 2 do
  local at_ms = tonumber(ARGV[i])
  if at_ms <= 0 then at_ms = now_ms + at_ms end
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[2], '*', 'at', string.format('%.0f', math.floor(at_ms)), 'e', ARGV[i + 1])
end
redis.call('PEXPIRE', KEYS[3], string.format('%.0f', kept_ms))
return 1
