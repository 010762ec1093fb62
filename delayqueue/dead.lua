-- Reads a page of dead letters, those that died first before others.
--
-- KEYS     1 to 8 see read.lua
-- ARGV     1 first rank, 2 how many
-- Returns  id, ms of death, record, state of each
-- Derived  none
-- Retry    read: it changes nothing

local from = tonumber(ARGV[1])
local page = call('ZRANGE', KEYS[5], from, from + tonumber(ARGV[2]) - 1, 'WITHSCORES')
local reply, ids = {}, {}
for i = 1, #page, 2 do ids[#ids + 1] = page[i] end
if #ids == 0 then return reply end
local records, states = call('HMGET', KEYS[3], unpack(ids)), call('HMGET', KEYS[4], unpack(ids))
for i = 1, #ids do
  local r = 4 * i - 3
  reply[r], reply[r + 1], reply[r + 2], reply[r + 3] = ids[i], page[2 * i], records[i], states[i]
end
return reply
