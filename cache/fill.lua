-- Stores what was loaded.
--
-- Promise: under a lease, what was loaded before a Delete or Set is not stored
-- after it. It would be broken by storing whenever the entry is absent (SETNX):
-- after a Delete it is. It is kept because both take the lease away, and a load
-- that lost its lease, or outlived it, stores nothing.
--
-- KEYS     1 entry, 2 lease
-- Derived  none
-- ARGV     1 head and 2 rest of the envelope, between which the version goes,
--          3 token, 4 ms to keep it, 5 how: 'lease', 'add' (only where nothing is,
--          or what is there is the entry in 6), 'plain', 6 the entry's first 18
--          bytes that was seen before the load
-- Returns  the entry's version, 0 if it was not stored
-- Retry    token: the entry that bears it was stored by the first run

local was = redis.call('GETRANGE', KEYS[1], 0, 43)
if string.sub(was, 33, 44) == ARGV[3] then return tonumber(string.sub(was, 3, 18)) end
if ARGV[5] == 'lease' then
  local lease = redis.call('GET', KEYS[2])
  if not lease or string.sub(lease, 1, 13) ~= 'L' .. ARGV[3] then return 0 end
elseif ARGV[5] == 'add' and was ~= '' and string.sub(was, 1, 18) ~= ARGV[6] then
  return 0
end
local time = redis.call('TIME')
local version = math.max(time[1] * 1000000 + time[2], (tonumber(string.sub(was, 3, 18)) or 0) + 1)
redis.call('SET', KEYS[1], ARGV[1] .. string.format('%016d', version) .. ARGV[2], 'PX', ARGV[4])
if ARGV[5] == 'lease' then redis.call('DEL', KEYS[2]) end
return version
