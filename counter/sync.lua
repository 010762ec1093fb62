-- Adds one increment and remembers the answer. Below plain.lua or packed.lua.
--
-- KEYS     1 token of the call, then the keys of the object or block
-- ARGV     1 ms to remember the token, 2 length of a block, 3 cell, 4 increment
-- Returns  the cell's new total; REFUSED range if it would leave ±2^53, REFUSED away if
--          the block is not here, REFUSED lost if it is here by its mark alone
-- Derived  none
-- Retry    token: the second run finds the first one's answer under KEYS[1]

local MAX = 9007199254740992 -- 2^53, exclusive

local answer = redis.call('GET', KEYS[1])
if answer then return answer end
if not here(2) then return redis.error_reply('REFUSED away') end
local have, lost = load(2, { ARGV[3] })
if not have then return lost or redis.error_reply('WRONGTYPE of ' .. KEYS[2]) end
local total = have[1] + ARGV[4]
if total <= -MAX or total >= MAX then return redis.error_reply('REFUSED range ' .. ARGV[3]) end
local text = string.format('%d', total)
redis.call('SET', KEYS[1], text, 'PX', ARGV[1])
store(2, { ARGV[3] }, { total }, ARGV[2])
return text
