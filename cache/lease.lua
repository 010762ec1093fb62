-- Takes the lease of a key: the right to load it, and to store what was loaded.
--
-- Promise: at most one token has the lease, and nobody gets it who has not seen
-- what the entry is now. It would be broken by a second loader that was slow to
-- find the entry missing: the first stored and gave the lease back meanwhile, and
-- the second would load again. So the entry is compared here, where nothing can
-- come between.
--
-- KEYS     1 entry, 2 lease
-- Derived  none
-- ARGV     1 token, 2 what the caller saw (the entry's first 18 bytes, '' if there
--          was none), 3 lease ms, 4 '1' to take it from whoever has it
-- Returns  {0} granted; {1, server time us, entry} the entry is another one by now;
--          {2, ms} somebody has the lease, for so long; {3, ms, text} the last load
--          failed, and for so long nobody shall try again
-- Retry    token: the lease that bears it is granted again
--
-- The lease is 'L' token failures while somebody loads; 'E' token until failures
-- text after a load that failed. until is server time in ms, 13 digits; failures
-- in a row are 2 digits.

local lease = redis.call('GET', KEYS[2])
local failures = '00'
if lease then
  if string.sub(lease, 1, 1) == 'L' then
    if string.sub(lease, 2, 13) == ARGV[1] then return { 0 } end
    failures = string.sub(lease, 14, 15)
  else
    failures = string.sub(lease, 27, 28)
  end
end
if ARGV[4] ~= '1' then
  if redis.call('GETRANGE', KEYS[1], 0, 17) ~= ARGV[2] then
    local time = redis.call('TIME')
    return { 1, time[1] * 1000000 + time[2], redis.call('GET', KEYS[1]) }
  end
  if lease and string.sub(lease, 1, 1) == 'L' then return { 2, redis.call('PTTL', KEYS[2]) } end
  if lease then
    local time = redis.call('TIME')
    local left = tonumber(string.sub(lease, 14, 26)) - (time[1] * 1000 + math.floor(time[2] / 1000))
    -- A cool-down is 5 s at most: a longer one was written before the clock was set back.
    if left > 0 and left <= 5000 then return { 3, left, string.sub(lease, 29) } end
  end
end
redis.call('SET', KEYS[2], 'L' .. ARGV[1] .. failures, 'PX', ARGV[3])
return { 0 }
