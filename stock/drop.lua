-- Deletes an activity.
--
-- KEYS     as settle.lua: 1 levels hash, 2 journal stream, 3 events stream,
--          4 holds hash, 5 limits hash, 6 eligible set, 7 base of the orders hashes
-- Derived  KEYS[7]:<generation>, for the current one, which stands in KEYS[1],
--          and the one before; an older one is gone or has a TTL
-- ARGV     none
-- Returns  the number of keys that were there
-- Retry    state: what is gone stays gone

local packed = redis.call('HGET', KEYS[1], '@')
local gen = packed and tonumber(string.match(packed, '^(%d+)')) or 0
return redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6],
  KEYS[7] .. ':' .. gen, KEYS[7] .. ':' .. math.max(0, gen - 1))
