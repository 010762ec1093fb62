-- Takes the rooms whose stock elsewhere was looked at longest ago, so that one server
-- looks at each.
--
-- KEYS     1 zset of rooms by the time, in us, at which they were last taken
-- Derived  none
-- ARGV     1 how many, 2 how long ago, in us, it must be at least
-- Returns  {server time us, room, …}
-- Retry    bounded: rooms that were taken and not looked at come again after ARGV[2]

local clock = redis.call('TIME')
local us = clock[1] * 1000000 + clock[2]
local rooms = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', us - tonumber(ARGV[2])), 'LIMIT', 0, ARGV[1])
local reply = { us }
for i, room in ipairs(rooms) do
  redis.call('ZADD', KEYS[1], string.format('%d', us), room)
  reply[i + 1] = room
end
return reply
