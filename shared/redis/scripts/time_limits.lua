-- The functions of the scripts that know the time limits of a request. They follow the prelude.

-- Returns code, message and retryable of a generation that no worker should begin any more; nil: one
-- may. Arguments are fields of meta or false: when it was created, how long it may take from then on,
-- how long it may wait for a worker, and since when it waits, ms.
local function overdue(created, deadline, queue_wait, waiting, now)
  if deadline and tonumber(created) + tonumber(deadline) <= now then
    return 'deadline_exceeded', string.format('not done within %.15g s: ask again with more time',
      tonumber(deadline) / 1000), 'false'
  end
  if queue_wait and waiting and tonumber(waiting) + tonumber(queue_wait) <= now then
    return 'queue_timeout', string.format('no worker took it within %.15g s: ask again',
      tonumber(queue_wait) / 1000), 'true'
  end
end

local function failed_json(code, message, retryable)
  return '{"type":"end","status":"failed","finish_reason":"error","error":{"code":"' .. code
    .. '","message":"' .. message .. '","retryable":' .. retryable .. '}}'
end
