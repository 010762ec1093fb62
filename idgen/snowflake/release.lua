-- Ends a lease, and gives back the reserved time that was not used.
--
-- KEYS     1 workers hash
-- Derived  none
-- ARGV     1 token, 2 worker id, 3 time of the last id us
-- Returns  1, or 0 if the lease was somebody else's
-- Retry    state: the token is compared, and gone after the first run

local token, _, ceiling, floor = unpack_slot(redis.call('HGET', KEYS[1], ARGV[2]))
if token ~= ARGV[1] then return 0 end
ceiling = math.min(ceiling, math.max(floor, tonumber(ARGV[3])))
redis.call('HSET', KEYS[1], ARGV[2], pack_slot('-', 0, ceiling, floor))
return 1
