-- Deletes an activity.
--
-- KEYS     as settle.lua: 1 levels hash, 2 journal stream, 3 events stream,
--          4 holds hash, 5 limits hash, 6 eligible set, 7 base of the orders hashes
-- Derived  KEYS[7]:<generation>, for the current one, which stands in KEYS[1], and 100
--          before it: the next activity of this name begins with the first again, while
--          an old one may live for a minute, or for the longer Retention there was once
-- ARGV     none
-- Returns  the number of keys that were there
-- Retry    state: what is gone stays gone

local packed = redis.call('HGET', KEYS[1], '@')
local gen = packed and tonumber(string.match(packed, '^(%d+)')) or 0
local gone = { KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6] }
for g = math.max(0, gen - 100), gen do gone[#gone + 1] = KEYS[7] .. ':' .. g end
return redis.call('UNLINK', unpack(gone))
