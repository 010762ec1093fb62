-- Prelude of the scripts of a fair lock, after record.lua: whose turn it is.
--
-- The queue (KEYS[2]) holds the tokens of the processes that wait, by the time at
-- which they came; seen (KEYS[3]) the time at which each asked last. A lock that is
-- free goes to the first of them: the record is kept for it for a window, in which
-- it has to take it. One that has not asked for long is passed over.

local WINDOW, GONE = 500, 1500000 -- ms, us

-- The first in the queue that is alive, and those before it that are not.
local function next_turn(except)
  local gone = {}
  for page = 0, 7 do
    local waiters = call('ZRANGE', KEYS[2], page * 32, page * 32 + 31)
    if #waiters == 0 then return nil, gone end
    local seen = call('ZMSCORE', KEYS[3], unpack(waiters))
    for i, w in ipairs(waiters) do
      local at = seen[i] and tonumber(seen[i])
      if w ~= except then
        if at and now - at <= GONE then return w, gone end
        gone[#gone + 1] = w
      end
    end
  end
  return nil, gone
end

local function forget(who)
  if #who > 0 then
    call('ZREM', KEYS[2], unpack(who))
    call('ZREM', KEYS[3], unpack(who))
  end
end

-- Keeps the lock for who, and tells; if memory is short,
-- whoever comes first may have it.
local function reserve(who, channel)
  token, linger, ttl, expires = who, '2', WINDOW, now + WINDOW * 1000
  local kept = keep()
  call('PUBLISH', channel, kept and 'turn ' .. who or 'free')
end
