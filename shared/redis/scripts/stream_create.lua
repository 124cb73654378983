-- Creates a stream, or a fork of another one, unless it exists.
-- KEYS[1] meta  [2] entries  [3] names of the owner  [4] sums of the owner  [5] meta of the source, or meta again
--     [6] tails of the owner's streams  [7] ids of the owner's subscriptions
-- ARGV[1] path  [2] content type; '' that of the source  [3] its media type  [4] ttl, s, or ''
--     [5] Stream-Expires-At or ''  [6] the same, ms  [7] '1' closed  [8] bytes  [9] their digest
--     [10] path of the source or ''  [11] place of the fork; '' not asked for  [12] the same, resolved
--     [13] sub-offset  [14] bytes of the source up to the sub-offset  [15] their digest
--     [16] parents of the fork, JSON  [17] its lineage, JSON  [18] lineage of the source, as it was read
--     [19] streams max  [20] owner bytes max  [21] idle ms
-- Returns {'created' or 'exists', tail, '1' if closed, content type, number of subscriptions} | {'differs'} | {'blocked'} | {'expired'}
--     | {'no source'} | {'source gone'} | {'source type'} | {'changed'} | {'full', 'streams' or 'owner'}
local now = clock()
local meta = load(1)
local state = state_of(meta, now)
if state == 'expired' then return {'expired'} end
if state == 'gone' then return {'blocked'} end
if state == 'live' then
  local is_same = (ARGV[3] == meta.media or (ARGV[3] == '' and ARGV[10] ~= ''))
    and ARGV[4] == meta.asked_ttl and ARGV[5] == meta.asked_expires
    and (ARGV[7] == '1') == (meta.closed ~= nil) and ARGV[10] == meta.source
    and (ARGV[11] == '' or ARGV[11] == meta.fork) and ARGV[13] == meta.sub
  if is_same then return {'exists', meta.tail, meta.closed or '', meta.type, '0'} end
  return {'differs'}
end
local kind, media, ttl, shown, expires = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local tail = ZERO
if ARGV[10] ~= '' then
  local source = load(5)
  local source_state = state_of(source, now)
  if source_state == 'gone' then return {'source gone'} end
  if source_state ~= 'live' then return {'no source'} end
  if media ~= '' and media ~= source.media then return {'source type'} end
  if source.lineage ~= ARGV[18] or position(source.tail) < position(ARGV[12]) then return {'changed'} end
  if media == '' then kind, media = source.type, source.media end
  if ttl == '' and shown == '' then
    ttl, shown, expires = source.ttl or '', source.shown or '', source.expires or ''
  end
  tail = ARGV[12]
end
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[19]) then return {'full', 'streams'} end
local more = #ARGV[8] + #ARGV[14]
if tonumber(redis.call('HGET', KEYS[4], 'bytes') or 0) + more > tonumber(ARGV[20]) then return {'full', 'owner'} end
local made = {path = ARGV[1], type = kind, media = media, start = tail, source = ARGV[10],
  asked_ttl = ARGV[4], asked_expires = ARGV[5], fork = ARGV[12], sub = ARGV[13],
  parents = ARGV[16], lineage = ARGV[17], created = number(now)}
if ttl ~= '' then made.ttl = ttl end
if shown ~= '' then made.shown, made.expires = shown, expires end
if ARGV[7] == '1' then made.closed = '1' end
if ARGV[10] ~= '' then redis.call('HINCRBY', KEYS[5], 'refs', 1) end
if #ARGV[14] > 0 then tail = add(2, tail, ARGV[14], ARGV[15]) end
if #ARGV[8] > 0 then tail = add(2, tail, ARGV[8], ARGV[9]) end
made.tail = tail
made['until'] = number(deadline(made, now, tonumber(ARGV[21])))
for name, value in pairs(made) do redis.call('HSET', KEYS[1], name, value) end
redis.call('ZADD', KEYS[3], made['until'], ARGV[1])
redis.call('HSET', KEYS[6], ARGV[1], tail)
redis.call('HINCRBY', KEYS[4], 'bytes', more)
return {'created', tail, made.closed or '', kind, number(redis.call('SCARD', KEYS[7]))}
