-- Numbers frames of a room, stores them and sends them to the servers with members.
-- KEYS: 1 numbers (hash), 2 log (zset), 3 last barrages (list), 4 servers (zset)
-- ARGV: 1 room, 2 what channels begin with, 3 ms after which a silent server is gone,
--   4 frames that the log keeps, 5 barrages that are kept, 6 ms the numbers are kept,
--   7 ms the frames are kept; then four for each frame: its kind (r, c or s), from, id,
--   and its JSON without the opening brace
-- Returns: the highest seq
-- Derived: none
-- Retry: bounded: a second run sends the same ids again, under new numbers; clients go
--   by the id
local call, format = redis.call, string.format
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local numbers = call('HMGET', KEYS[1], 'seq', 'tail', 'epoch')
local seq, tail = tonumber(numbers[1] or '0'), tonumber(numbers[2] or '0')
local epoch = numbers[3] or format('%d', now)
local servers = call('ZRANGEBYSCORE', KEYS[4], format('%d', now - ARGV[3]), '+inf')

local lines = { format('room %s %s %d', ARGV[1], epoch, tail) }
local log, last = {}, {}
for i = 8, #ARGV, 4 do
  local kind, from, id, rest = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local line
  if kind == 's' then
    line = format('s %s 0 0 %s {"ts":%d,', from, id, now) .. rest
  else
    seq = seq + 1
    if kind == 'r' then
      line = format('r %s %d %d %s {"seq":%d,"prev":%d,"ts":%d,', from, seq, tail, id, seq, tail, now) .. rest
      log[#log + 1] = format('%d', seq)
      log[#log + 1] = line
      tail = seq
    else
      line = format('c %s %d 0 %s {"seq":%d,"ts":%d,', from, seq, id, seq, now) .. rest
      last[#last + 1] = line
    end
  end
  lines[#lines + 1] = line
end

call('HSET', KEYS[1], 'seq', format('%d', seq), 'tail', format('%d', tail), 'epoch', epoch)
call('PEXPIRE', KEYS[1], ARGV[6])
if #log > 0 then
  call('ZADD', KEYS[2], unpack(log))
  call('ZREMRANGEBYRANK', KEYS[2], 0, format('%d', -ARGV[4] - 1))
  call('PEXPIRE', KEYS[2], ARGV[7])
end
if #last > 0 then
  call('LPUSH', KEYS[3], unpack(last))
  call('LTRIM', KEYS[3], 0, format('%d', ARGV[5] - 1))
  call('PEXPIRE', KEYS[3], ARGV[7])
end
local message = table.concat(lines, '\n')
for _, server in ipairs(servers) do
  call('PUBLISH', ARGV[2] .. server, message)
end
return seq
