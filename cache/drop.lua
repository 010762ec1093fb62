-- Deletes an entry, and tells the other processes.
--
-- Promise: once it ran, no load that began before it is stored. It would be broken
-- by removing the entry alone, or the two one after the other with a loader
-- between. A failure's cool-down is not a load and stays.
--
-- KEYS     1 entry, 2 lease
-- Derived  none
-- ARGV     1 channel, 2 message
-- Returns  1 if there was an entry, else 0
-- Retry    state: what is gone stays gone; a second run may also drop what was
--          stored since, which is a miss and no harm

local lease = redis.call('GETRANGE', KEYS[2], 0, 0)
local n = redis.call('UNLINK', KEYS[1])
if lease == 'L' then redis.call('UNLINK', KEYS[2]) end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return n
