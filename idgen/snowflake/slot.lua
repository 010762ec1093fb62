-- Prelude of the scripts on worker ids. KEYS[1] is a hash with a field per worker id:
--
--   <token> <end of the lease, server ms> <ceiling, us> <floor, us>
--
-- Ids of the holder have a time above its floor and not above its ceiling. Both only
-- grow from holder to holder. A token of - is nobody's.

local format = string.format
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function unpack_slot(r)
  if not r then return '-', 0, 0, 0 end
  local token, ends, ceiling, floor = string.match(r, '^(%S+) (%d+) (%d+) (%d+)$')
  return token, tonumber(ends), tonumber(ceiling), tonumber(floor)
end

local function pack_slot(token, ends, ceiling, floor)
  return format('%s %d %d %d', token, ends, ceiling, floor)
end

-- The caller's clock must be near the server's, or a wrong one would put a worker
-- id out of use for as long as it was ahead.
local function clock_is_off(theirs)
  local off = tonumber(theirs) - now
  if off > 60000000 or off < -60000000 then
    return redis.error_reply(format('REFUSED CLOCK %d', off))
  end
end
