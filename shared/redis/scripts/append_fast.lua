-- Stands before everything else in `append`: the case that nearly every token is, in four calls and
-- without the functions of the prelude. The caller is the holder, nothing is missing and nothing is
-- there twice: seqs have no holes and begin at 1, so the log's length is its top. A log of that
-- length under this token is the caller's own, and so is its last id; and an end leaves no token.
-- Anything else goes on below. A call costs more here than what it does: hence no second field.
local call = redis.call
if ARGV[5] == '' and ARGV[4] == '' and call('HGET', KEYS[1], 'token') == ARGV[1]
    and call('XLEN', KEYS[2]) == tonumber(ARGV[3]) then
  local frame = ARGV[7]
  for i = 8, #ARGV do
    local id = ARGV[2] .. '-' .. string.format('%.0f', ARGV[3] + i - 7)
    call('XADD', KEYS[2], id, 'e', ARGV[i])
    frame = frame .. '\n' .. id .. ' ' .. ARGV[i]
  end
  call('PUBLISH', KEYS[3], frame)
  return {'ok'}
end
