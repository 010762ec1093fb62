-- Ends a lease if it is the caller's, and wakes who waits.
--
-- KEYS     1 record
-- ARGV     1 token, 2 last fence that was used, 3 resend (1: an earlier attempt of
--          this call may have run), 4 channel
-- Returns  1 released, 2 released and others wait, 0 not the caller's any more, -1
--          not the caller's: released by the earlier attempt, or lost before
-- Derived  none
-- Retry    token: the record remembers who released last; where it no longer
--          does, the answer is -1

local me = ARGV[1]
if before == me then return 1 end
if not (live and token == me) then
  return ARGV[3] == '1' and -1 or 0
end
-- Fences that were reserved and not used are given back: else a busy lock would
-- run ahead of the clock, and fences would fall behind after a FLUSHALL.
last = math.max(first, math.min(last, tonumber(ARGV[2])))
if free(me) then
  call('PUBLISH', ARGV[4], 'free')
  return 2
end
return 1
