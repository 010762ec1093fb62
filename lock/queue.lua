-- Takes a lock if it is free and the caller's turn; else queues.
--
-- KEYS     1 record, 2 queue, 3 seen
-- ARGV     as acquire.lua: 1 token, 2 ttl ms, 3 number of fences to reserve, 4 waits,
--          5 lingers, 6 channel
-- Returns  as acquire.lua; the ms since the turn came, for a caller whose turn it was
-- Derived  none
-- Retry    token: as acquire.lua; whoever is in the queue keeps its place

local me = ARGV[1]
if live and token == me and linger ~= '2' then return { 1, first, tonumber(waiting), -1 } end

local function enlist()
  if ARGV[4] ~= '1' then return end
  local at = format('%d', now)
  call('ZADD', KEYS[2], 'NX', at, me)
  call('ZADD', KEYS[3], at, me)
  call('PEXPIRE', KEYS[2], 60000)
  call('PEXPIRE', KEYS[3], 60000)
end

local age, gone, turn = -1, {}, me
call('ZCARD', KEYS[2]) -- their types, before the first write
call('ZCARD', KEYS[3])
if live and token == me then
  age = math.floor((now + ttl * 1000 - expires) / 1000)
elseif live or before == me then
  local asks = ARGV[4] == '1' and waiting == '0'
  if asks then waiting = '1' end
  if asks or rebased then mark() end
  if before ~= me then enlist() end
  if live and linger == '1' and (asks or ARGV[4] == '0') then call('PUBLISH', ARGV[6], 'wanted') end
  return { 0, live and left() or 0 }
else
  -- One that let its turn pass is out; if it lives it queues again.
  turn, gone = next_turn(linger == '2' and token or '-')
  if linger == '2' then gone[#gone + 1] = token end
  turn = turn or me
end

if turn ~= me then
  if ARGV[4] == '1' then waiting = '1' end
  enlist()
  reserve(turn, ARGV[6])
  forget(gone)
  return { 0, left() }
end
gone[#gone + 1] = me
grant(me, tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[5])
forget(gone)
return { 1, first, tonumber(waiting), age }
