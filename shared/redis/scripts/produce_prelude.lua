-- The functions of the scripts that append for a producer outside of the workers. They follow the prelude,
-- grace and time_limits. `f` are fields of meta: status, token, attempt, producer, grace, hist, created,
-- deadline, bytes; more may follow.

-- Ends the generation if its readers are gone or its deadline has passed. Returns its status then, or nil.
local function end_if_over(f, now, retention_ms)
  if f[5] and f[5] ~= '' and grace_is_over(tonumber(f[5]), now) then
    close('cancelled', CANCELLED, f[3], f[6], now, retention_ms)
    return 'cancelled'
  end
  local code, message, retryable = overdue(f[7], f[8], nil, nil, now)
  if code then
    close('failed', failed_json(code, message, retryable), f[3], f[6], now, retention_ms)
    return 'failed'
  end
end

-- Extends the lease, unless an end was written; notes the bytes, and publishes the frame.
-- `added`: bytes of the new entries without an end; `frame`: the top before them, and the new entries.
local function settle_append(f, status, added, frame, now)
  if is_active(status) then
    redis.call('HSET', KEYS[1], 'lease', decimal(now + tonumber(f[4])))
    redis.call('HDEL', KEYS[1], 'spared')
  end
  if added > 0 then
    redis.call('HSET', KEYS[1], 'bytes', decimal(tonumber(f[9] or '0') + added))
  end
  if #frame > 1 then publish(table.concat(frame, '\n')) end
end
