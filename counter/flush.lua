-- Adds a batch of increments of one process.
--
-- KEYS     1 number of the last flush of this process here, 2 on a hash for each object
-- ARGV     1 number of this flush, 2 ms to remember it, 3 number of field names n,
--          then n field names, then for each object the number of its increments
--          and for each of those the index of the field name and the increment
-- Returns  what was not added since the total would leave its range or the key is no
--          hash: index of the object, index of the field name, and so on in pairs;
--          nothing the second time
-- Derived  none
-- Retry    token: a number that is not above KEYS[1] was applied before

local MAX = 9007199254740992 -- 2^53, exclusive

local number = tonumber(ARGV[1])
local last = redis.call('GET', KEYS[1])
if last and tonumber(last) >= number then return {} end

local fields = tonumber(ARGV[3])
local at = 4 + fields
local refused, writes = {}, {}
for k = 2, #KEYS do
  local n = tonumber(ARGV[at])
  local ask = {}
  for i = 1, n do ask[i] = ARGV[3 + ARGV[at + 2 * i - 1]] end
  local have = redis.pcall('HMGET', KEYS[k], unpack(ask))
  local write = {}
  for i = 1, n do
    local before = not have.err and tonumber(have[i] or '0')
    local total = before and before + ARGV[at + 2 * i]
    if total and total > -MAX and total < MAX then
      write[#write + 1] = ask[i]
      write[#write + 1] = string.format('%d', total)
    else
      refused[#refused + 1] = k - 1
      refused[#refused + 1] = tonumber(ARGV[at + 2 * i - 1])
    end
  end
  writes[k] = write
  at = at + 1 + 2 * n
end

redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
for k = 2, #KEYS do
  if #writes[k] > 0 then redis.call('HSET', KEYS[k], unpack(writes[k])) end
end
return refused
