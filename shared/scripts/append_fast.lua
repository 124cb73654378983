-- Stands before everything else in `append`: the case that nearly every token is, in four calls and
-- without the functions of the prelude. The caller is the holder, nothing is missing and nothing is
-- there twice: seqs have no holes and begin at 1, so the log's length is its top. A log of that
-- length under this token is the caller's own, and so is its last id. Anything else goes on below.
if ARGV[5] == '' and ARGV[4] == '' then
  local f = redis.call('HMGET', KEYS[1], 'token', 'status')
  if f[1] == ARGV[1] and f[2] == 'running' and redis.call('XLEN', KEYS[2]) == tonumber(ARGV[3]) then
    local frame = ARGV[7]
    for i = 8, #ARGV do
      local id = ARGV[2] .. '-' .. string.format('%.0f', ARGV[3] + i - 7)
      redis.call('XADD', KEYS[2], id, 'e', ARGV[i])
      frame = frame .. '\n' .. id .. ' ' .. ARGV[i]
    end
    redis.call('PUBLISH', KEYS[3], frame)
    return {'ok'}
  end
end
