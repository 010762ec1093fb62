-- Extends a lease and reserves time for its ids.
--
-- KEYS     1 workers hash
-- Derived  none
-- ARGV     1 token, 2 worker id, 3 lease ms, 4 caller's clock us, 5 ceiling wanted us
-- Returns  ceiling us as a string
-- Retry    state: the token is compared, and a ceiling only grows

local token, _, ceiling, floor = unpack_slot(redis.call('HGET', KEYS[1], ARGV[2]))
if token ~= ARGV[1] then return redis.error_reply('REFUSED LOST') end
local off = clock_is_off(ARGV[4])
if off then return off end
ceiling = math.max(ceiling, tonumber(ARGV[5]))
redis.call('HSET', KEYS[1], ARGV[2], pack_slot(token, math.floor(now / 1000) + ARGV[3], ceiling, floor))
return format('%d', ceiling)
