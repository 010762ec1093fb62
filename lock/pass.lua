-- Ends a lease, a turn or a place in the queue, whichever the caller has, and gives
-- the lock to the next that waits.
--
-- KEYS     1 record, 2 queue, 3 seen
-- ARGV     as release.lua: 1 token, 2 last fence that was used, 3 resend, 4 channel
-- Returns  as release.lua
-- Derived  none
-- Retry    token: as release.lua; a place that is given up is not given up again

local me = ARGV[1]
local mine = live and token == me
local had = mine and linger ~= '2'
local turn, gone = nil, {}
if mine then turn, gone = next_turn(me) else call('ZCARD', KEYS[2]) call('ZCARD', KEYS[3]) end
gone[#gone + 1] = me
if not mine then
  forget(gone)
  if before == me then return 1 end
  return ARGV[3] == '1' and -1 or 0
end
if had then
  last = math.max(first, math.min(last, tonumber(ARGV[2])))
  before = me
end
local told = true
if turn then
  reserve(turn, ARGV[4])
else
  told = free(had and me)
  if told then call('PUBLISH', ARGV[4], 'free') end
end
forget(gone)
return told and 2 or 1
