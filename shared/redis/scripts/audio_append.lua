-- Appends one chunk to the audio input of an unfinished generation, and rings the bell of its worker.
-- KEYS[1] meta  [2] audio: entry <seq>-0 with the fields e = bytes, t = bytes so far, l = '1' if last
-- ARGV[1] seq  [2] '1' if this is the last chunk  [3] bytes  [4] unread bytes max  [5] bytes max in all
--     [6] ms for which the input is kept if the end of the generation is never recorded  [7] the caller
-- Returns {'ok' or 'again', next seq, bytes in all, bytes read, '1' if complete}
--     | {'absent'} | {'ended', status} | {'none'} | {'conflict'} | {'complete', next seq}
--     | {'gap', next seq} | {'full', next seq, unread bytes} | {'long', bytes in all}
-- A repeated chunk is compared with the stored one and not stored again. The newest entry holds the
-- whole state, so what Redis has lost of the input is always its end, and the client sends it again.
local call = redis.call
local f = call('HMGET', KEYS[1], 'status', 'audio', 'audio_read', 'worker', 'owner')
if not f[1] or f[1] == 'sealed' or f[5] ~= ARGV[7] then return {'absent'} end
if f[1] ~= 'queued' and f[1] ~= 'running' then return {'ended', f[1]} end
if not f[2] then return {'none'} end
local seq, read, top, total, complete = tonumber(ARGV[1]), tonumber(f[3] or '0'), 0, 0, ''
local newest = call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if newest then
  top, total, complete = tonumber(string.match(newest[1], '%d+')), tonumber(newest[2][4]), newest[2][6]
end

local function decimal(number)
  return string.format('%.0f', number)
end

if seq <= top then
  local found = newest
  if seq < top then found = call('XRANGE', KEYS[2], ARGV[1] .. '-0', ARGV[1] .. '-0')[1] end
  if not found or found[2][2] ~= ARGV[3] or found[2][6] ~= ARGV[2] then return {'conflict'} end
  return {'again', decimal(top + 1), decimal(total), decimal(read), complete}
end
if complete == '1' then return {'complete', decimal(top + 1)} end
if seq > top + 1 then return {'gap', decimal(top + 1)} end
local unread, size = math.max(0, total - read), #ARGV[3]
if size > 0 and unread + size > tonumber(ARGV[4]) then
  return {'full', decimal(top + 1), decimal(unread)}
end
total = total + size
if size > 0 and total > tonumber(ARGV[5]) then return {'long', decimal(total - size)} end
call('XADD', KEYS[2], ARGV[1] .. '-0', 'e', ARGV[3], 't', decimal(total), 'l', ARGV[2])
call('PEXPIRE', KEYS[2], ARGV[6])
-- In double quotes, which the loader does not turn into SPUBLISH: a worker listens to one channel,
-- whatever the slots of its generations are.
if f[4] and f[4] ~= '' then
  call("PUBLISH", 'tr:audio:' .. f[4], string.match(KEYS[1], '{(.*)}'))
end
return {'ok', decimal(seq + 1), decimal(total), decimal(read), ARGV[2]}
