-- Reads entries.
--
-- KEYS     the entries, one or more
-- Derived  none
-- ARGV     none
-- Returns  server time us, then each entry or nil
-- Retry    read: it changes nothing

local time = redis.call('TIME')
local reply = redis.call('MGET', unpack(KEYS))
table.insert(reply, 1, time[1] * 1000000 + time[2])
return reply
