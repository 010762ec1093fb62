-- Judges where a sink of the journal stands, keeps that, trims what no sink needs any
-- more, and returns what comes next.
--
-- KEYS     1 levels hash, 2 journal stream
-- Derived  none
-- ARGV     1 name of the sink, 2 its checkpoint, empty if the sink is to be forgotten,
--          3 number of entries wanted, 4 not empty: the sink cannot take what follows
-- Returns  {0, entries}; {1}: the sink stands before what is kept; {2, position}: the
--          journal forked there, {2, position, 1}: and is being rebuilt
-- Retry    state: a checkpoint only grows, a fork stays
--
-- The field '@journal' of KEYS[1] is "lowest forked " and then "name=checkpoint " for
-- each sink: the lowest checkpoint of all, and the one after which the journal is not
-- the sink's any more, or '-'.

local call, match = redis.call, string.match

local function less(a, b)
  local ams, aseq = match(a, '^(%d+)-(%d+)$')
  local bms, bseq = match(b, '^(%d+)-(%d+)$')
  ams, aseq, bms, bseq = tonumber(ams), tonumber(aseq), tonumber(bms), tonumber(bseq)
  return ams < bms or ams == bms and aseq < bseq
end

local name, at = ARGV[1], ARGV[2]
local got = call('HMGET', KEYS[1], '@', '@journal')
local due, cursor, last = '0', '0-0', '0-0'
if got[1] then due, cursor, last = match(got[1], '^%d+ %d+ %d+ (%d+) %d+ (%S+) (%S+)$') end
local lowest, forked, rest = '0-0', '-', ''
if got[2] then lowest, forked, rest = match(got[2], '^(%S+) (%S+) (.*)$') end
if forked ~= '-' then return { 2, match(forked, '[^:]*$'), match(forked, '^!') and 1 } end

local sinks, order = {}, {}
for sink, position in string.gmatch(rest, '(%S+)=(%S+) ') do
  sinks[sink] = position
  order[#order + 1] = sink
end

-- The chain of predecessors is the proof, not the ids: after a failover the clock goes
-- on, so that new entries lie beyond a checkpoint that the server never heard of.
local gone = at == ''
local entries, broken = {}, not gone and (ARGV[4] ~= '' or less(last, at))
if not (gone or broken) and at ~= last then
  entries = call('XRANGE', KEYS[2], '(' .. at, '+', 'COUNT', ARGV[3])
  broken = #entries == 0 or entries[1][2][2] ~= at
end
if broken and ARGV[4] == '' and (at == '0-0' or less(at, sinks[name] or lowest)) then return { 1 } end

if not sinks[name] then order[#order + 1] = name end
if broken then
  forked, entries, sinks[name] = at, {}, sinks[name] or '0-0'
elseif gone or not sinks[name] or less(sinks[name], at) then
  sinks[name] = not gone and at
end
lowest, rest = nil, ''
for _, sink in ipairs(order) do
  local position = sinks[sink]
  if position then
    if not lowest or less(position, lowest) then lowest = position end
    rest = rest .. sink .. '=' .. position .. ' '
  end
end
lowest = lowest or '0-0'
local packed = lowest .. ' ' .. forked .. ' ' .. rest
if packed ~= got[2] then
  if not (broken or gone) then
    -- This reader's own entries stay, and the schedule of holds. It comes first: where
    -- memory is short it is what helps, and it is allowed.
    local keep = less(at, lowest) and at or lowest
    if due ~= '0' and less(cursor, keep) then keep = cursor end
    call('XTRIM', KEYS[2], 'MINID', '~', keep)
  end
  call('HSET', KEYS[1], '@journal', packed)
end
if broken then return { 2, at } end
return { 0, entries }
