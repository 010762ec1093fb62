-- Prelude of the scripts of an exclusive lock: its record, one string, read.
--
-- The record is "expires ttl first last waiting linger token before":
--   expires  server time us until which token holds the lock; 0 or less: it was
--            released, at -expires
--   ttl      ms, of the holder
--   first, last  the fences that token may use; last also after a release
--   waiting  1: somebody waits since the last message on the channel
--   linger   1: the holder may keep the lock unused, and listens; 2: nobody holds the
--            lock, it is kept for token, whose turn it is
--   token    of the holder, - if none
--   before   the token that released last, - if none
-- It is kept for a day after the lease's end, so that fences grow even if the clock
-- is set back by less than that. Where memory is short a renewal cannot write it, and
-- extends the key's TTL alone: a day less than that is the lease's.

local call, format, match = redis.call, string.format, string.match

local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2]
local packed = call('GET', KEYS[1])
local expires, ttl, first, last, waiting, linger, token, before = 0, 0, 0, 0, '0', '0', '-', '-'
local rebased = false
if packed then
  expires, ttl, first, last, waiting, linger, token, before =
    match(packed, '^(%-?%d+) (%d+) (%d+) (%d+) (%d) (%d) (%S+) (%S+)$')
  expires, ttl, first, last = tonumber(expires), tonumber(ttl), tonumber(first), tonumber(last)
  if expires > now + ttl * 1000 then -- the clock was set back: not longer than a TTL from here
    expires, rebased = now + ttl * 1000, true
  end
end
local KEEP = 86400000
if expires > 0 and expires <= now then
  local more = call('PTTL', KEYS[1]) - KEEP
  if more > 1 then expires = now + more * 1000 end
end
local live = expires > now

local function pack()
  return format('%d %d %d %d %s %s %s %s', expires, ttl, first, last, waiting, linger, token, before)
end

-- What is left of a live lease, in ms, rounded up.
local function left() return math.ceil((expires - now) / 1000) end

-- Writes what changed of a record whose lease goes on. The key's TTL stays: a renewal
-- that could not write the record is in it, and would be cut off. One that the clock
-- left too long does not.
local function mark()
  if rebased then
    call('SET', KEYS[1], pack(), 'PX', KEEP + math.max(0, left()))
  else
    call('SET', KEYS[1], pack(), 'KEEPTTL')
  end
end

-- Writes the record of a lock that is given back. Where memory is short, deleting
-- is still allowed: the next fence is then the server's time, as for a lock that was
-- never used. Returns whether the record was kept.
local function keep()
  local stored = redis.pcall('SET', KEYS[1], pack(), 'PX', KEEP)
  if type(stored) == 'table' and stored.err then
    call('DEL', KEYS[1])
    return false
  end
  return true
end

-- Ends the lease. Returns whether somebody waits.
local function free(by)
  local notify = waiting == '1'
  expires, token, waiting, linger = -now, '-', '0', '0'
  if by then before = by end
  keep()
  return notify
end

local function grant(me, my_ttl, block, my_linger)
  ttl, token, linger = my_ttl, me, my_linger
  expires = now + ttl * 1000
  first = math.max(last + 1, now)
  last = first + block - 1
  call('SET', KEYS[1], pack(), 'PX', KEEP + ttl)
end
