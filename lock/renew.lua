-- Extends a lease that its holder still has; never brings one back.
--
-- KEYS     1 record
-- ARGV     1 token, 2 ttl ms
-- Returns  1 if the lease was extended, 0 if it is not the caller's
-- Derived  none
-- Retry    state: the expiry is set from now

if not live or token ~= ARGV[1] then return 0 end
ttl = tonumber(ARGV[2])
expires = now + ttl * 1000
local stored = redis.pcall('SET', KEYS[1], pack(), 'PX', KEEP + ttl)
if type(stored) == 'table' and stored.err then call('PEXPIRE', KEYS[1], KEEP + ttl) end
return 1
