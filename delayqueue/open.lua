-- Fixes the number of shards of a queue at its first use.
--
-- KEYS     1 number of shards
-- ARGV     1 the number wanted
-- Returns  the number in use
-- Derived  none
-- Retry    state: the first to come decides

local n = redis.call('GET', KEYS[1])
if n then return tonumber(n) end
redis.call('SET', KEYS[1], ARGV[1])
return tonumber(ARGV[1])
