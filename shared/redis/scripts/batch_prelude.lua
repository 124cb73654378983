-- What the scripts of a batch's holder share. The holder of the log's token is the only one who may
-- change the batch: every one of them begins with `refusal`.
-- KEYS[5] record  [6] flight  [7] parts  [8] dead letters

-- Why a holder may not write: another one is there, or Redis has gone back behind what it knows.
-- Its own memory is ahead then, so it leaves, and whoever begins next reads everything anew.
-- `known_top` is the top of the log as the holder knows it; '' where it does not matter.
local function stop(token, attempt, known_top)
  local refused = refusal(redis.call('HMGET', KEYS[1], 'status', 'token', 'attempt'), token, attempt)
  if refused then return refused end
  local _, _, top_id = top()
  if known_top ~= '' and top_id ~= known_top then return {'moved'} end
  return nil
end

-- Appends events to the batch's own log, under the holder's attempt, and publishes them in one frame.
-- With a status, the last of them is the end.
-- Returns the new top.
local function say(attempt, events, status, now, retention_ms)
  local _, top_seq, top_id = top()
  if #events == 0 then return top_id end
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
  return before_id
end

local function push_lease(now, lease_ms)
  redis.call('HSET', KEYS[1], 'lease', whole(now + tonumber(lease_ms)))
end
