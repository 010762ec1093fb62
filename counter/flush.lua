-- Adds a batch of increments of one process. Below plain.lua or packed.lua.
--
-- KEYS     1 number of the last flush of this process here, then the keys of each
--          object or block
-- ARGV     1 number of this flush, 2 ms to remember it, 3 length of a block, then for
--          each object or block the number of its increments and for each of those the
--          cell and the increment
-- Returns  which of the increments were not added since the total would leave its
--          range or a key is of another type, counted from 1; nothing the second time.
--          Or -i for each block i that is not here: then nothing was added. REFUSED lost
--          if one is here by its mark alone
-- Derived  none
-- Retry    token: a number that is not above KEYS[1] was applied before

local MAX = 9007199254740992 -- 2^53, exclusive

local number = tonumber(ARGV[1])
local last = redis.call('GET', KEYS[1])
if last and tonumber(last) >= number then return {} end

local away = {}
for k = 2, #KEYS, KEYS_EACH do
  if not here(k) then away[#away + 1] = -((k - 2) / KEYS_EACH + 1) end
end
if #away > 0 then return away end

local at, before = 4, 0
local refused, writes, sums = {}, {}, {}
for k = 2, #KEYS, KEYS_EACH do
  local n = tonumber(ARGV[at])
  local cells = {}
  for i = 1, n do cells[i] = ARGV[at + 2 * i - 1] end
  local have, answer = load(k, cells)
  if answer then return answer end
  local write, sum = {}, {}
  for i = 1, n do
    local total = have and have[i] + ARGV[at + 2 * i]
    if total and total > -MAX and total < MAX then
      write[#write + 1] = cells[i]
      sum[#sum + 1] = total
    else
      refused[#refused + 1] = before + i
    end
  end
  writes[k], sums[k] = write, sum
  before = before + n
  at = at + 1 + 2 * n
end

redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
for k = 2, #KEYS, KEYS_EACH do store(k, writes[k], sums[k], ARGV[3]) end
return refused
