-- Puts what a Rebuild made in the place of a frozen activity.
--
-- KEYS     as settle.lua: 1 levels hash, 2 journal stream, 3 events stream, 4 holds hash,
--          5 limits hash, 6 eligible set, 7 base of the orders hashes; then what was
--          made: 8 levels, 9 journal, 10 holds, 11 limits, 12 orders
-- Derived  KEYS[7]:<generation>, for the current one, which stands in KEYS[1], and the
--          one before
-- ARGV     1 token of the Rebuild, 2 generation of the new orders, 3 what makes the
--          journal's new state, then sku, version and left of each crossing
-- Returns  1: done; 0: another Rebuild was faster, or what was made is gone
-- Retry    state: what was made is there once

local call, match = redis.call, string.match
local got = call('HMGET', KEYS[1], '@', '@journal', '@halt', '@rebuilt')
if got[4] == ARGV[1] then return 1 end
if not got[2] or match(got[2], '^%S+ !([^:]*):') ~= ARGV[1] then return 0 end
local there = {}
for i = 8, 12 do there[i] = call('EXISTS', KEYS[i]) == 1 end
if not there[8] then return 0 end
call('XLEN', KEYS[3]) -- of the right type before the first write

local gen = got[1] and tonumber(match(got[1], '^(%d+)')) or 0
call('UNLINK', KEYS[1], KEYS[2], KEYS[4], KEYS[5], KEYS[7] .. ':' .. gen, KEYS[7] .. ':' .. math.max(0, gen - 1))
local function replace(from, to)
  call('RENAME', from, to)
  call('PERSIST', to)
end
replace(KEYS[8], KEYS[1])
if there[9] then replace(KEYS[9], KEYS[2]) end -- not of a bucket in which nothing was
if there[10] then replace(KEYS[10], KEYS[4]) end
if there[11] then replace(KEYS[11], KEYS[5]) end
if there[12] then replace(KEYS[12], KEYS[7] .. ':' .. ARGV[2]) end
if got[3] then call('HSET', KEYS[1], '@halt', got[3]) end
call('HSET', KEYS[1], '@journal', ARGV[3], '@rebuilt', ARGV[1])
for i = 4, #ARGV, 3 do
  call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 's', ARGV[i], 'v', ARGV[i + 1], 'l', ARGV[i + 2])
end
return 1
