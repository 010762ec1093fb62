-- Gives a permit back, or a writer's intent, and wakes who waits.
--
-- KEYS     1 state, 2 members
-- ARGV     1 token, 2 gives up waiting to write (0, 1), 3 resend (1: an earlier
--          attempt of this call may have run), 4 channel
-- Returns  1 given back, 0 not the caller's any more, -1 not the caller's: given
--          back by the earlier attempt, or lost before
-- Derived  none
-- Retry    token: a member that was given back is remembered

local had = mine and mine > now
if mine and mine <= 0 then return 1 end
if not had and ARGV[2] ~= '1' then
  return ARGV[3] == '1' and -1 or 0
end

-- Where memory is short, removing is still allowed, and the state may stay as it
-- is: an intent ends by itself, and a message more does no harm.
if had then
  local kept = redis.pcall('ZADD', KEYS[2], 'XX', us(-now), me)
  if type(kept) == 'table' and kept.err then call('ZREM', KEYS[2], me) end
end
local notify = waiting == '1'
if ARGV[2] == '1' then intent = 0 end
waiting = '0'
if notify or ARGV[2] == '1' then redis.pcall('SET', KEYS[1], pack(), 'PX', KEEP) end
if notify then call('PUBLISH', ARGV[4], 'free') end
if had then return 1 end
return ARGV[3] == '1' and -1 or 0
