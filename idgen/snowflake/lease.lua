-- Leases a free worker id of a page of them: the one whose ceiling is lowest, since
-- that is the soonest to be of use.
--
-- KEYS     1 workers hash
-- Derived  none
-- ARGV     1 token, 2 first worker id of the page, 3 worker ids in the page, 4 worker
--          ids in all, 5 lease ms, 6 caller's clock us, 7 ceiling wanted us
-- Returns  the worker id, or -1 if none is free; floor and ceiling, us, as strings
-- Retry    token: a second run finds the token in the page before it looks for a free id

local off = clock_is_off(ARGV[6])
if off then return off end
local from, count, all = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local ids = {}
for i = 0, count - 1 do ids[i + 1] = (from + i) % all end
local got = redis.call('HMGET', KEYS[1], unpack(ids))

local best, lowest
for i = 1, count do
  local token, ends, ceiling, floor = unpack_slot(got[i])
  if token == ARGV[1] then
    return { ids[i], format('%d', floor), format('%d', ceiling) }
  end
  if ends * 1000 <= now and (not best or ceiling < lowest) then
    best, lowest = ids[i], ceiling
  end
end
if not best then return { -1, '0', '0' } end
local ceiling = math.max(lowest, tonumber(ARGV[7]))
redis.call('HSET', KEYS[1], best, pack_slot(ARGV[1], math.floor(now / 1000) + ARGV[5], ceiling, lowest))
return { best, format('%d', lowest), format('%d', ceiling) }
