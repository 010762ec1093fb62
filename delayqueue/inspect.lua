-- Counts the jobs of a shard.
--
-- KEYS     1 to 8 see read.lua, 9 paused
-- ARGV     none
-- Returns  server time us, waiting, of these due by now, running, dead, first due ms
--          (-1: none), paused (0, 1)
-- Derived  none
-- Retry    read: it changes nothing

return { us, call('ZCARD', KEYS[1]), call('ZCOUNT', KEYS[1], '-inf', now), call('ZCARD', KEYS[2]),
         call('ZCARD', KEYS[5]), head_of(KEYS[1]) or -1, call('EXISTS', KEYS[9]) }
