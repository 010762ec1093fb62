-- Extends a permit that its holder still has; never brings one back.
--
-- KEYS     1 state, 2 members
-- ARGV     1 token, 2 ttl ms
-- Returns  1 if it was extended, 0 if it is not the caller's
-- Derived  none
-- Retry    state: the expiry is set from now

if not (mine and mine > now) then return 0 end
call('ZADD', KEYS[2], 'XX', us(now + ARGV[2] * 1000), me)
-- A member outlives neither key, however long ago the last one came.
call('PEXPIRE', KEYS[2], KEEP + ARGV[2])
call('PEXPIRE', KEYS[1], KEEP + ARGV[2])
return 1
