-- Prelude of the scripts of read-write locks and semaphores: their state, read.
--
-- KEYS[2] holds the tokens by the server time, in us, at which each one's lease
-- ends; a token that was given back stays for ten seconds at minus the time of
-- that, so that a second run of the release is told from a loss.
-- KEYS[1] is "size last waiting intent writer":
--   size     of a semaphore, 0 for a read-write lock
--   last     fence
--   waiting  1: somebody waits since the last message on the channel
--   intent   server time us until which a writer that waits keeps new readers out
--   writer   the token that wrote last, - if none

local call, format, match = redis.call, string.format, string.match

local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2]
local packed = call('GET', KEYS[1])
local size, last, waiting, intent, writer = 0, 0, '0', 0, '-'
if packed then
  size, last, waiting, intent, writer = match(packed, '^(%d+) (%d+) (%d) (%d+) (%S+)$')
  size, last, intent = tonumber(size), tonumber(last), tonumber(intent)
  -- It is set for a second at most: the clock was set back. A writer that still waits sets it anew.
  if intent > now + 1000000 then intent = 0 end
end
local me = ARGV[1]
local mine = call('ZSCORE', KEYS[2], me)
mine = mine and tonumber(mine)

local KEEP = 86400000
local function pack() return format('%d %d %s %d %s', size, last, waiting, intent, writer) end
local function us(n) return format('%d', n) end
