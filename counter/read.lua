-- Reads counters of one shard, and how far one process's flushes have come there.
-- Below plain.lua or packed.lua.
--
-- KEYS     1 number of the last flush of this process here, then the keys of each
--          object or block
-- ARGV     for each object or block the number of cells to read, then the cells
-- Returns  that number, then the total of each cell in turn, or "away" for each of a
--          block that is not here; REFUSED lost if one is here by its mark alone
-- Derived  none
-- Retry    read: it changes nothing

local out = { tonumber(redis.call('GET', KEYS[1]) or '0') }
local at = 1
for k = 2, #KEYS, KEYS_EACH do
  local n = tonumber(ARGV[at])
  local cells = {}
  for i = 1, n do cells[i] = ARGV[at + i] end
  local have, answer = {}, nil
  if here(k) then
    have, answer = load(k, cells)
  else
    for i = 1, n do have[i] = 'away' end
  end
  if not have then return answer or redis.error_reply('WRONGTYPE of ' .. KEYS[k]) end
  for i = 1, n do out[#out + 1] = have[i] end
  at = at + 1 + n
end
return out
