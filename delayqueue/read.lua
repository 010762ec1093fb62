-- Prelude: of all scripts: the clock, the formats, and what was decided about ids
-- that are gone.
--
-- KEYS of every script begin with 1 due zset (ms → id), 2 run zset (lease end ms →
-- id), 3 jobs hash (id → record), 4 state hash (id → state), 5 dead zset (ms of
-- death → id), 6 unique hash (key → id), 7 base of the verdict hashes, 8 wake channel.
--
-- A record is <token of the Add, 8 bytes><max attempts, or empty>:<length of the
-- unique key, or empty>:<unique key><body>. A job in no state is fresh. A state is
-- a letter (R running, U running with a unique key, W waits for a retry, D dead)
-- and <token of the Add><token of the delivery> <token that settled it last> <attempts>
-- <crashes> <due ms> <max attempts> <length of the unique key>:<unique key><error>.
-- A verdict is a letter (A finished, X cancelled), the token of the Add and that of
-- the delivery. Verdicts live in one hash per window, KEYS[7]:<number>, and are
-- looked up in two, so that one is known for a window at least.

local call, sub, match, format = redis.call, string.sub, string.match, string.format
local floor, ceil = math.floor, math.ceil

local clock = call('TIME')
local us = clock[1] * 1000000 + clock[2]
local now = floor(us / 1000)

local function write(command, key, list)
  for a = 1, #list, 2000 do call(command, key, unpack(list, a, math.min(#list, a + 1999))) end
end

-- The first ms at which delay µs are over.
local function after(delay) return ceil((us + delay) / 1000) end

local STATE = '^(.)(........)(%S+) (%S+) (%d+) (%d+) (%d+) (%d*) (%d+):()'

local function parse(state)
  local kind, add, token, last, attempts, crashes, due, max, length, at = match(state, STATE)
  length = tonumber(length)
  return { kind = kind, add = add, token = token, last = last, attempts = tonumber(attempts),
           crashes = tonumber(crashes), due = due, max = max,
           unique = sub(state, at, at + length - 1), error = sub(state, at + length) }
end

local function pack(s)
  return s.kind .. s.add .. s.token .. ' ' .. s.last .. ' ' .. format('%d %d', s.attempts, s.crashes) .. ' '
    .. s.due .. ' ' .. s.max .. ' ' .. #s.unique .. ':' .. s.unique .. s.error
end

-- The unique key in a record, or ''.
local function unique_of(record)
  if sub(record, 9, 10) == '::' then return '' end
  local length, at = match(record, '^........%d*:(%d*):()')
  if length == '' then return '' end
  return sub(record, at, at + tonumber(length) - 1)
end

local function generation(window) return floor(now / window) end
local function verdict_key(g) return KEYS[7] .. ':' .. format('%d', g) end

-- Verdicts of ids, a list of at most 1000, by id.
local function verdicts(window, ids)
  local found, g = {}, generation(window)
  for k = g, g - 1, -1 do
    local r = call('HMGET', verdict_key(k), unpack(ids))
    for i = 1, #ids do
      if r[i] and not found[ids[i]] then found[ids[i]] = r[i] end
    end
  end
  return found
end

-- Keeps verdicts, a list of ids and verdicts. Never a script's first write: when
-- memory is short Redis would refuse it.
local function keep_verdicts(window, list)
  if #list == 0 then return end
  local g = generation(window)
  local new = call('EXISTS', verdict_key(g)) == 0
  write('HSET', verdict_key(g), list)
  if new then
    -- A large hash that expires blocks the server; one that is unlinked does not.
    call('UNLINK', verdict_key(g - 2))
    call('PEXPIRE', verdict_key(g), 3 * window)
  end
end

-- Frees unique keys, a list of keys and the ids that may hold them.
local function free_unique(list)
  for i = 1, #list, 2 do
    if call('HGET', KEYS[6], list[i]) == list[i + 1] then call('HDEL', KEYS[6], list[i]) end
  end
end

local function head_of(key)
  local head = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return head[2] and tonumber(head[2])
end

-- Tells sleeping consumers of a job that is due before all they know of.
local function wake(head, earliest)
  if earliest and (not head or earliest < head) then
    call('PUBLISH', KEYS[8], format('%d %d', earliest, us))
  end
end
