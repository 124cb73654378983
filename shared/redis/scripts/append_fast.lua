-- The first part of `append`: the case of nearly every token, in four calls and without the functions
-- of the prelude. In this case the caller is the holder, no entry is missing and none is resent. Seqs
-- begin at 1 and have no gaps, so the length of the log is its newest seq. A log of this length under
-- this token is the caller's own, and so is its last id; an ended generation has no token.
-- Every other case continues below. A call costs more than its work: hence only one field is read.
local call = redis.call
if ARGV[5] == '' and ARGV[4] == '' and call('HGET', KEYS[1], 'token') == ARGV[1]
    and call('XLEN', KEYS[2]) == tonumber(ARGV[3]) then
  local frame = ARGV[7]
  for i = 8, #ARGV do
    local id = ARGV[2] .. '-' .. string.format('%.0f', ARGV[3] + i - 7)
    call('XADD', KEYS[2], id, 'e', ARGV[i])
    frame = frame .. '\n' .. id .. ' ' .. ARGV[i]
  end
  call('PUBLISH', string.sub(KEYS[1], 1, -5) .. 'live', frame)
  return {'ok'}
end
