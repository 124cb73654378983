-- Shared by the scripts that only the holder of a batch may run, the holder of its log's token. Each
-- script begins with `batch_refusal`.
-- KEYS[3] record  [4] flight  [5] parts  [6] dead letters

-- Returns why the caller may not write, or nil: another process holds the batch, or Redis lost changes
-- of this holder. In the latter case the holder must stop, and the next one reads everything again.
-- `known_top`: the holder's newest id of the log; '' if it does not matter.
local function batch_refusal(token, attempt, known_top)
  local refused = refusal(redis.call('HMGET', KEYS[1], 'status', 'token', 'attempt'), token, attempt)
  if refused then return refused end
  local _, _, top_id = top()
  if known_top ~= '' and top_id ~= known_top then return {'moved'} end
  return nil
end

-- Appends events to the batch's log under the holder's attempt, and publishes them in one frame.
-- With a status, the last event is the end. Returns the newest id.
local function append_events(attempt, events, status, now, retention_ms)
  local _, top_seq, top_id = top()
  if #events == 0 then return top_id end
  local frame, newest = {top_id}, top_id
  for i, event in ipairs(events) do
    local id = attempt .. '-' .. decimal(top_seq + i)
    if status and i == #events then
      write_end(id, 0, status, event, now, retention_ms)
    else
      redis.call('XADD', KEYS[2], id, 'e', event)
    end
    frame[#frame + 1] = id .. ' ' .. event
    newest = id
  end
  publish(table.concat(frame, '\n'))
  return newest
end

local function extend_lease(now, lease_ms)
  redis.call('HSET', KEYS[1], 'lease', decimal(now + tonumber(lease_ms)))
end
