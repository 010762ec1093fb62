-- Sets a marker that an effect happens once.
--
-- KEYS     1 the marker
-- ARGV     1 token of the call, 2 ms for which it is kept
-- Returns  1 if this call set it, 0 if another did
-- Derived  none
-- Retry    token: the marker names the call that set it

local holder = redis.call('GET', KEYS[1])
if holder then return holder == ARGV[1] and 1 or 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
