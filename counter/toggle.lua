-- Puts a member on or off, and counts it with the same stroke.
--
-- KEYS     1 token of the call, 2 hash of the object, 3 set of the members that are on
-- ARGV     1 ms to remember the token, 2 field, 3 member, 4 on (1) or off (0)
-- Returns  1 if that changed something, else 0; REFUSED range if the total would
--          leave ±2^53
-- Derived  none
-- Retry    token: the second run of a call that changed something finds KEYS[1]; one
--          that changed nothing may run again

local MAX = 9007199254740992 -- 2^53, exclusive

if redis.call('GET', KEYS[1]) then return 1 end
local is = redis.call('SISMEMBER', KEYS[3], ARGV[3])
local total = tonumber(redis.call('HGET', KEYS[2], ARGV[2]) or '0')
if is == tonumber(ARGV[4]) then return 0 end
total = total + (is == 1 and -1 or 1)
if total <= -MAX or total >= MAX then return redis.error_reply('REFUSED range ' .. ARGV[2]) end
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
if is == 1 then
  redis.call('SREM', KEYS[3], ARGV[3])
else
  redis.call('SADD', KEYS[3], ARGV[3])
end
redis.call('HSET', KEYS[2], ARGV[2], string.format('%d', total))
return 1
