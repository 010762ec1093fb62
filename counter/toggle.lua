-- Puts a member on or off, and counts it with the same stroke. Below plain.lua or
-- packed.lua, and set.lua or bits.lua.
--
-- KEYS     1 token of the call, then the keys of the object or block, last that of the
--          members that are on
-- ARGV     1 ms to remember the token, 2 length of a block, 3 cell, 4 member, 5 on (1)
--          or off (0)
-- Returns  1 if that changed something, else 0; REFUSED range if the total would
--          leave ±2^53, REFUSED away if the block is not here, REFUSED lost if it is
--          here by its mark alone
-- Derived  none
-- Retry    token: the second run of a call that changed something finds KEYS[1]; one
--          that changed nothing may run again

local MAX = 9007199254740992 -- 2^53, exclusive

if redis.call('GET', KEYS[1]) then return 1 end
if not here(2) then return redis.error_reply('REFUSED away') end
local is = isOn()
local have, lost = load(2, { ARGV[3] })
if not have then return lost or redis.error_reply('WRONGTYPE of ' .. KEYS[2]) end
if is == tonumber(ARGV[5]) then return 0 end
local total = have[1] + (is == 1 and -1 or 1)
if total <= -MAX or total >= MAX then return redis.error_reply('REFUSED range ' .. ARGV[3]) end
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
put(1 - is)
store(2, { ARGV[3] }, { total }, ARGV[2])
return 1
