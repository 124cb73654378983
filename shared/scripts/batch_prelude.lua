-- What the scripts of a batch's holder share. The holder of the log's token is the only one who may
-- change the batch: every one of them begins with `refusal`.
-- KEYS[5] record  [6] flight  [7] parts  [8] dead letters

-- Appends events to the batch's own log, under the holder's attempt, and publishes them in one frame.
-- With a status, the last of them is the end.
local function say(attempt, events, status, now, retention_ms)
  if #events == 0 then return end
  local _, top_seq, top_id = top()
  local frame, before_id = {top_id}, top_id
  for i, event in ipairs(events) do
    local id = attempt .. '-' .. whole(top_seq + i)
    if status and i == #events then
      write_end(id, before_id, status, event, now, retention_ms)
    else
      redis.call('XADD', KEYS[2], id, 'e', event)
    end
    frame[#frame + 1] = id .. ' ' .. event
    before_id = id
  end
  redis.call('PUBLISH', KEYS[3], table.concat(frame, '\n'))
end

local function push_lease(now, lease_ms)
  redis.call('HSET', KEYS[1], 'lease', whole(now + tonumber(lease_ms)))
end
