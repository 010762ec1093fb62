-- Stops everything in an activity whose journal forked, or lets it go on being halted.
--
-- KEYS     1 levels hash, 2 journal stream
-- Derived  none
-- ARGV     1 token of the Rebuild, 2 what to do, 3 seconds after which another Rebuild
--          that was not heard of is taken for dead. freeze; stay, frozen, which is heard;
--          thaw; halt, a bucket of an activity in which another forked; look
-- Returns  {0}: the journal did not fork; {1}: another Rebuild is at work; {3}: it forked,
--          and confirms and cancels go on; {2, server time us, '@', last entry}: it is
--          frozen by this token
-- Retry    state: forked or not, frozen by this token or not

local clock = redis.call('TIME')
local got = redis.call('HMGET', KEYS[1], '@', '@journal')
local lowest, forked, rest = '0-0', '-', ''
if got[2] then lowest, forked, rest = string.match(got[2], '^(%S+) (%S+) (.*)$') end
if forked == '-' then
  if ARGV[2] ~= 'halt' then return { 0 } end
  forked = lowest
end
-- While an activity is frozen the fork is !<token>:<since>:<position>.
local token, since, position = string.match(forked, '^!([^:]*):(%d+):(.*)$')
position = position or forked
if token and token ~= ARGV[1] and clock[1] - since < tonumber(ARGV[3]) then return { 1 } end
if ARGV[2] == 'look' then return { 3 } end
if ARGV[2] == 'stay' and token ~= ARGV[1] then return { 1 } end
if ARGV[2] == 'freeze' or ARGV[2] == 'stay' then
  forked = '!' .. ARGV[1] .. ':' .. clock[1] .. ':' .. position
elseif token == ARGV[1] and ARGV[2] == 'thaw' then
  forked = position
end
redis.call('HSET', KEYS[1], '@journal', lowest .. ' ' .. forked .. ' ' .. rest)
if ARGV[2] ~= 'freeze' and ARGV[2] ~= 'stay' then return { 3 } end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
return { 2, clock[1] * 1000000 + clock[2], got[1] or '', last and last[1] or '0-0' }
