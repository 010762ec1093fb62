-- Takes a lock if it is free.
--
-- KEYS     1 record
-- ARGV     1 token, 2 ttl ms, 3 number of fences to reserve, 4 waits (1: the
--          caller will wait for a message if the lock is held), 5 lingers (0, 1),
--          6 channel
-- Returns  {1, first fence, others wait (0, 1), ms since it was released, or -1 if
--          it was not} or {0, ms left}
-- Derived  none
-- Retry    token: the same token gets the same fence again; once released it gets
--          nothing any more

local me = ARGV[1]
if live and token == me then return { 1, first, tonumber(waiting), -1 } end
if live or before == me then
  -- The first to wait says so, once: the release then publishes. A holder that
  -- lingers is asked to stop, also for a caller who does not wait.
  local asks = ARGV[4] == '1' and waiting == '0'
  if asks then waiting = '1' end
  if asks or rebased then mark() end
  if live and linger == '1' and (asks or ARGV[4] == '0') then call('PUBLISH', ARGV[6], 'wanted') end
  return { 0, live and left() or 0 }
end
local age = -1
if packed and expires <= 0 then age = math.max(0, math.floor((now + expires) / 1000)) end
grant(me, tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[5])
return { 1, first, tonumber(waiting), age }
