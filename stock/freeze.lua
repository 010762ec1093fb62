-- Stops everything in an activity whose journal forked, or lets it go on being halted.
--
-- KEYS     1 levels hash
-- Derived  none
-- ARGV     1 token of the Rebuild, 2 freeze (1) or thaw (0), 3 seconds after which
--          another Rebuild that has not finished is taken for dead
-- Returns  {0}: the journal did not fork, or is not frozen by this token; {1}: another
--          Rebuild is at work; {2, server time us, '@'}: done
-- Retry    state: frozen by this token or not

local clock = redis.call('TIME')
local got = redis.call('HMGET', KEYS[1], '@', '@journal')
if not got[2] then return { 0 } end
local lowest, forked, rest = string.match(got[2], '^(%S+) (%S+) (.*)$')
if forked == '-' then return { 0 } end
-- While an activity is frozen the fork is !<token>:<since>:<position>.
local token, since, position = string.match(forked, '^!([^:]*):(%d+):(.*)$')
position = position or forked
if ARGV[2] == '1' then
  if token and token ~= ARGV[1] and clock[1] - since < tonumber(ARGV[3]) then return { 1 } end
  forked = '!' .. ARGV[1] .. ':' .. clock[1] .. ':' .. position
elseif token == ARGV[1] then
  forked = position
else
  return { 0 }
end
redis.call('HSET', KEYS[1], '@journal', lowest .. ' ' .. forked .. ' ' .. rest)
return { 2, clock[1] * 1000000 + clock[2], got[1] or '' }
