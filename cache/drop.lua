-- Deletes an entry, and tells the other processes.
--
-- Promise: once it ran, no load that began before it is stored. It would be broken
-- by removing the entry alone, or the two one after the other with a loader
-- between. A failure's cool-down is not a load and stays.
--
-- KEYS     1 entry, 2 lease
-- Derived  none
-- ARGV     1 channel, 2 message, 3 '1': an entry that a writer made stays, and
--          nobody is told
-- Returns  1 if there was an entry, else 0; -1 if it stays
-- Retry    state: what is gone stays gone; a second run may also drop what was
--          stored since, which is a miss and no harm

local lease = redis.call('GETRANGE', KEYS[2], 0, 0)
if ARGV[3] == '1' then
  local head = redis.call('GETRANGE', KEYS[1], 0, 1)
  if #head == 2 and string.byte(head, 1) == 1 and string.byte(head, 2) % 4 >= 2 then
    if lease == 'L' then redis.call('UNLINK', KEYS[2]) end
    return -1
  end
end
local n = redis.call('UNLINK', KEYS[1])
if lease == 'L' then redis.call('UNLINK', KEYS[2]) end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return n
