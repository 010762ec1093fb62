-- Stores what a writer says, and tells the other processes.
--
-- Promise: once it ran, no load that began before it replaces the value. It would
-- be broken by a loader that stores late; that one's lease is taken away here.
--
-- KEYS     1 entry, 2 lease
-- Derived  none
-- ARGV     1 head and 2 rest of the envelope, between which the version goes,
--          3 token, 4 ms to keep it, 5 channel, 6 message, 7 '1': only if there is
--          no entry that is fresh and found (Add)
-- Returns  the entry's version, 0 if it was not stored
-- Retry    token: the entry that bears it was stored by the first run. If another
--          writer replaced it meanwhile, the second run counts as the later write:
--          both were under way at once

local was = redis.call('GETRANGE', KEYS[1], 0, 43)
if string.sub(was, 33, 44) == ARGV[3] then return tonumber(string.sub(was, 3, 18)) end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local version = tonumber(string.sub(was, 3, 18)) or 0
if ARGV[7] == '1' and #was == 44 and string.byte(was, 1) == 1 and string.byte(was, 2) % 2 == 0 then
  local a, b, c, d, e = string.byte(was, 19, 23)
  local fresh = (((a * 256 + b) * 256 + c) * 256 + d) * 256 + e
  if now < version + fresh * 1000 then return 0 end
end
version = math.max(now, version + 1)
redis.call('SET', KEYS[1], ARGV[1] .. string.format('%016d', version) .. ARGV[2], 'PX', ARGV[4])
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', ARGV[5], ARGV[6])
return version
