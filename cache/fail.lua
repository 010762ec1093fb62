-- Ends a lease whose load failed, or gave up.
--
-- Promise: after a failed load no process loads the key again before the cool-down
-- is over, and each failure in a row doubles it. It would be broken by a process
-- that outlived its lease and ends somebody else's: tokens are compared.
--
-- KEYS     1 lease
-- Derived  none
-- ARGV     1 token, 2 first cool-down ms (0: none, the lease just ends), 3 longest
--          cool-down ms, 4 how much of it counts, in thousandths, 5 text of the error
-- Returns  ms of the cool-down, 0 if there is none
-- Retry    token: the cool-down that bears it is not begun again

local lease = redis.call('GET', KEYS[1])
if not lease or string.sub(lease, 2, 13) ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if string.sub(lease, 1, 1) == 'E' then
  return math.max(0, tonumber(string.sub(lease, 14, 26)) - now)
end
-- First of all, as a server that is out of memory refuses a script's first write
-- only if that may need some, and no later one.
redis.call('UNLINK', KEYS[1])
if ARGV[2] == '0' then return 0 end
local failures = tonumber(string.sub(lease, 14, 15))
local cool = math.min(tonumber(ARGV[3]), tonumber(ARGV[2]) * 2 ^ failures)
cool = math.max(1, math.floor(cool * tonumber(ARGV[4]) / 1000))
-- How many there were is remembered for as long again, and 5 s.
redis.call('SET', KEYS[1], 'E' .. ARGV[1] .. string.format('%013d', now + cool)
  .. string.format('%02d', math.min(failures + 1, 20)) .. ARGV[5], 'PX', string.format('%d', 2 * cool + 5000))
return cool
