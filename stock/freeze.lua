-- Stops everything in an activity whose journal forked, or lets it go on being halted.
--
-- KEYS     1 levels hash
-- Derived  none
-- ARGV     1 token of the Rebuild, 2 freeze (1) or thaw (0)
-- Returns  {'@', position of the fork}; {} if the journal did not fork, or if another
--          Rebuild froze it since
-- Retry    state: frozen by this token or not

local got = redis.call('HMGET', KEYS[1], '@', '@journal')
if not got[2] then return {} end
local lowest, forked, rest = string.match(got[2], '^(%S+) (%S+) (.*)$')
if forked == '-' then return {} end
-- While an activity is frozen the fork is !<token>:<position>.
local token, position = string.match(forked, '^!([^:]*):(.*)$')
position = position or forked
if ARGV[2] == '1' then
  forked = '!' .. ARGV[1] .. ':' .. position
elseif token == ARGV[1] then
  forked = position
else
  return {}
end
redis.call('HSET', KEYS[1], '@journal', lowest .. ' ' .. forked .. ' ' .. rest)
return { got[1] or '', position }
