-- Reads the last tick of a periodic job.
--
-- KEYS     1 periodic hash (name → last tick ms)
-- ARGV     1 name
-- Returns  server time us, last tick ms (empty: none)
-- Derived  none
-- Retry    read: it changes nothing

local clock = redis.call('TIME')
return { clock[1] * 1000000 + clock[2], redis.call('HGET', KEYS[1], ARGV[1]) or '' }
