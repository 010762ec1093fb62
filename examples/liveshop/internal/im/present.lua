-- Says how many members of a room a server has, and asks how the room stands.
-- KEYS: 1 numbers (hash), 2 servers (zset), 3 online (hash)
-- ARGV: 1 server, 2 its sockets in the room, 3 ms after which a silent server is gone,
--   4 ms the numbers are kept, 5 ms the presence is kept
-- Returns: { sockets of all servers, seq, tail, epoch, now in ms }
-- Derived: none
-- Retry: state: it sets what the server counts
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local gone = call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('(%d', now - ARGV[3]), 'LIMIT', 0, 100)
if ARGV[2] == '0' then
  gone[#gone + 1] = ARGV[1]
end
if #gone > 0 then
  call('ZREM', KEYS[2], unpack(gone))
  call('HDEL', KEYS[3], unpack(gone))
end
if ARGV[2] ~= '0' then
  call('ZADD', KEYS[2], string.format('%d', now), ARGV[1])
  call('HSET', KEYS[3], ARGV[1], ARGV[2])
  call('PEXPIRE', KEYS[2], ARGV[5])
  call('PEXPIRE', KEYS[3], ARGV[5])
end
local online = 0
for _, n in ipairs(call('HVALS', KEYS[3])) do
  online = online + n
end
call('HSETNX', KEYS[1], 'epoch', string.format('%d', now))
call('PEXPIRE', KEYS[1], ARGV[4])
local numbers = call('HMGET', KEYS[1], 'seq', 'tail', 'epoch')
return { online, tonumber(numbers[1] or '0'), tonumber(numbers[2] or '0'), tonumber(numbers[3]), now }
