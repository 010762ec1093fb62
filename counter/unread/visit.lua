-- Adds visitors to a page's HyperLogLog.
--
-- KEYS     1 HyperLogLog
-- ARGV     1 ms to keep it from now on, then visitors
-- Returns  nothing
-- Derived  none
-- Retry    state: who is in is in

redis.call('PFADD', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return nil
