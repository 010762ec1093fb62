-- Claims a range of a counter.
--
-- KEYS     1 counter hash: n the last number handed out, server the replication id
--          of the server that did it
-- Derived  none
-- ARGV     1 step, 2 the number below which the counter never begins, 3 the largest
--          number that the caller was given before, 4 gap
-- Returns  the last number of the range as a string, 1 if the gap was skipped
-- Retry    bounded: a second run claims another range, and the first one is a hole

local step, start = tonumber(ARGV[1]), tonumber(ARGV[2])
local seen, gap = tonumber(ARGV[3]), tonumber(ARGV[4])
local got = redis.call('HMGET', KEYS[1], 'n', 'server')
local n = tonumber(got[1] or '0')

-- A promoted replica, and a master that was restarted, has another replication id.
-- What it does not know of the last moments of the one before is skipped. pcall: some
-- servers, and ACLs, do not tell.
local info = redis.pcall('INFO', 'replication')
local server = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or got[2] or ''

local skipped = 0
if n < seen or got[2] and got[2] ~= server then
  if n < seen then n = seen end
  n, skipped = n + gap, 1
end
if n < start then n = start end
-- Doubles are exact up to here.
if n + step > 9007199254740991 then
  return redis.error_reply('REFUSED EXHAUSTED')
end
n = n + step
redis.call('HSET', KEYS[1], 'n', string.format('%d', n), 'server', server)
return { string.format('%d', n), skipped }
