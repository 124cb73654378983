-- Appends the entries of a holder in order and publishes them in one frame. A resend is always safe.
-- ARGV[1] token  [2] attempt  [3] seq before the first entry  [4] '' or, to extend the lease, its ms
--     [5] '' or, if the last entry is the end, its status  [6] retention ms
--     [7] the caller's id of the entry before the first one  [8..] entries, JSON
-- Returns {'ok'} | {'ended'} | {'fenced'} | {'behind', seq, id} | {'lost', id}
local f = redis.call('HMGET', KEYS[1], 'status', 'token', 'attempt')
local refused = refusal(f, ARGV[1], ARGV[2])
if refused then return refused end
local _, top_seq, top_id = top()
local before = tonumber(ARGV[3])
if top_seq < before then return {'behind', decimal(top_seq), top_id} end

local frame = {top_id}
for i = 8, #ARGV do
  local seq = before + i - 7
  if seq > top_seq then
    local id = ARGV[2] .. '-' .. decimal(seq)
    if i == #ARGV and ARGV[5] ~= '' then
      local now = now_ms()
      write_end(id, held_ms(now), ARGV[5], ARGV[i], now, tonumber(ARGV[6]))
    else
      redis.call('XADD', KEYS[2], id, 'e', ARGV[i])
    end
    frame[#frame + 1] = id .. ' ' .. ARGV[i]
  end
end
if ARGV[5] == '' and ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'lease', decimal(now_ms() + tonumber(ARGV[4])))
end
if #frame > 1 then publish(table.concat(frame, '\n')) end
return {'ok'}
