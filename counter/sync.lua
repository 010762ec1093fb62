-- Adds one increment and remembers the answer.
--
-- KEYS     1 token of the call, 2 hash of the object
-- ARGV     1 ms to remember the token, 2 field, 3 increment
-- Returns  the field's new total; REFUSED range if it would leave ±2^53
-- Derived  none
-- Retry    token: the second run finds the first one's answer under KEYS[1]

local MAX = 9007199254740992 -- 2^53, exclusive

local answer = redis.call('GET', KEYS[1])
if answer then return answer end
local before = tonumber(redis.call('HGET', KEYS[2], ARGV[2]) or '0')
local total = before + ARGV[3]
if total <= -MAX or total >= MAX then return redis.error_reply('REFUSED range ' .. ARGV[2]) end
local text = string.format('%d', total)
redis.call('SET', KEYS[1], text, 'PX', ARGV[1])
redis.call('HSET', KEYS[2], ARGV[2], text)
return text
