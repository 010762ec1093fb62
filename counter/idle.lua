-- Finds blocks that have not changed for a while.
--
-- KEYS     1 the blocks that are here, by the second of their last change
-- ARGV     1 seconds without a change, 2 how many at most
-- Returns  their numbers, the longest idle first
-- Derived  none
-- Retry    read: it changes nothing

local before = redis.call('TIME')[1] - ARGV[1]
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', before, 'LIMIT', 0, ARGV[2])
