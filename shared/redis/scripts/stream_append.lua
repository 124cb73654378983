-- Appends to a stream, closes it, or both.
-- KEYS[1] meta  [2] entries  [3] producers  [4] names of the owner  [5] sums of the owner  [6] their tails
--     [7] ids of the owner's subscriptions
-- ARGV[1] media type; '' without bytes  [2] bytes  [3] their digest  [4] '1' close  [5] live channel
--     [6] '1' and Stream-Seq, or ''  [7] producer id or ''  [8] epoch  [9] seq
--     [10] stream bytes max  [11] stream entries max  [12] owner bytes max  [13] producers max
--     [14] idle ms  [15] bytes max of a frame  [16] ms until a producer is forgotten
-- Returns {'ok', tail, '1' if closed, number of subscriptions} | {'duplicate', tail, '1' if closed, last seq} | {'closed', tail}
--     | {'stale', epoch} | {'epoch'} | {'gap', expected} | {'seq'} | {'type'} | {'absent'} | {'gone'}
--     | {'full', 'owner' or 'producers'}
local now = clock()
local meta = load(1)
local state = state_of(meta, now)
if state == 'gone' then return {'gone'} end
if state ~= 'live' then return {'absent'} end
local bytes, closes, producer = ARGV[2], ARGV[4] == '1', ARGV[7]
local epoch, seq = tonumber(ARGV[8]), tonumber(ARGV[9])
local known, last_epoch, last_seq = false, nil, nil
if producer ~= '' then known = redis.call('HGET', KEYS[3], producer) end
if known then
  last_epoch, last_seq = string.match(known, '^(%d+) (%d+) ')
  last_epoch, last_seq = tonumber(last_epoch), tonumber(last_seq)
end
local is_repeat = known and epoch == last_epoch and seq <= last_seq
if meta.closed then
  if is_repeat then return {'duplicate', meta.tail, '1', number(last_seq)} end
  if bytes == '' and producer == '' then return {'ok', meta.tail, '1', '0'} end
  return {'closed', meta.tail}
end
if bytes ~= '' and ARGV[1] ~= meta.media then return {'type'} end
if producer ~= '' then
  if known then
    if epoch < last_epoch then return {'stale', number(last_epoch)} end
    if epoch > last_epoch and seq ~= 0 then return {'epoch'} end
    if is_repeat then return {'duplicate', meta.tail, '', number(last_seq)} end
    if epoch == last_epoch and seq > last_seq + 1 then return {'gap', number(last_seq + 1)} end
  else
    if seq ~= 0 then return {'gap', '0'} end
    if redis.call('HLEN', KEYS[3]) >= tonumber(ARGV[13]) then
      local all = redis.call('HGETALL', KEYS[3])
      for i = 1, #all, 2 do
        local when = tonumber(string.match(all[i + 1], '(%d+)$'))
        if now - when > tonumber(ARGV[16]) then redis.call('HDEL', KEYS[3], all[i]) end
      end
      if redis.call('HLEN', KEYS[3]) >= tonumber(ARGV[13]) then return {'full', 'producers'} end
    end
  end
end
local given = string.sub(ARGV[6], 2)
if ARGV[6] ~= '' and meta.seq and given <= meta.seq then return {'seq'} end
local before, tail = meta.tail, meta.tail
if bytes ~= '' then
  if tonumber(redis.call('HGET', KEYS[5], 'bytes') or 0) + #bytes > tonumber(ARGV[12]) then return {'full', 'owner'} end
  tail = add(2, tail, bytes, ARGV[3])
  local start = trim(2, meta, tail, tonumber(ARGV[10]), tonumber(ARGV[11]))
  redis.call('HSET', KEYS[1], 'tail', tail, 'start', start)
  redis.call('HSET', KEYS[6], meta.path, tail)
  redis.call('HINCRBY', KEYS[5], 'bytes', number(#bytes - (position(start) - position(meta.start))))
end
if producer ~= '' then
  redis.call('HSET', KEYS[3], producer, ARGV[8] .. ' ' .. ARGV[9] .. ' ' .. number(now))
end
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'seq', given) end
if closes then redis.call('HSET', KEYS[1], 'closed', '1') end
touch(meta, 1, 4, now, tonumber(ARGV[14]))
publish(ARGV[5], before, tail, closes and 'c' or '-', bytes, tonumber(ARGV[15]))
return {'ok', tail, closes and '1' or '', number(redis.call('SCARD', KEYS[7]))}
