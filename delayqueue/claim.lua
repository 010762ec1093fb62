-- Leases jobs to a consumer: those whose lease ran out first, then those that are
-- due, oldest first.
--
-- KEYS     1 to 8 see read.lua, 9 paused, 10 the consumer's last claim: a list of its
--          number and the ids it got
-- ARGV     1 resend, 2 number of the claim, 3 token of its deliveries, 4 how many at
--          most, 5 lease ms, 6 max crashes, 7 bytes after which no further job is
--          taken, 8 tidy (1: drop dead letters that are too old), 9 retention of dead
--          letters ms, 10 again (1: a call of this number failed before)
-- Returns  server time us, next due ms (-1: none), next lease end ms (-1: none),
--          paused (0, 1), jobs that died now, orphans dropped; then id, record,
--          attempts, crashes, due ms of each job
-- Derived  none
-- Retry    token: the number of the claim; run again it returns the same jobs, and
--          an attempt that arrives after a later one takes nothing

local token, k = ARGV[3], tonumber(ARGV[4])
local again = ARGV[1] == '1' or ARGV[10] == '1'
-- Lists have counters of their own: # searches.
local reply, r = { us, -1, -1, 0, 0, 0 }, 6

local function deliver(id, record, attempts, crashes, due)
  reply[r + 1], reply[r + 2], reply[r + 3], reply[r + 4], reply[r + 5] = id, record, attempts, crashes, due
  r = r + 5
end

local function finish()
  reply[2] = head_of(KEYS[1]) or -1
  reply[3] = head_of(KEYS[2]) or -1
  return reply
end

local last = tonumber(call('LINDEX', KEYS[10], 0) or '0')
if last >= tonumber(ARGV[2]) then
  if last > tonumber(ARGV[2]) or not again then return finish() end
  local ids = call('LRANGE', KEYS[10], 1, -1)
  if #ids > 0 then
    local records, states = call('HMGET', KEYS[3], unpack(ids)), call('HMGET', KEYS[4], unpack(ids))
    for i = 1, #ids do
      local s = states[i] and parse(states[i])
      if s and records[i] and s.token == token and (s.kind == 'R' or s.kind == 'U') then
        deliver(ids[i], records[i], s.attempts, s.crashes, s.due)
      end
    end
  end
  return finish()
end

if call('EXISTS', KEYS[9]) == 1 then
  reply[4] = 1
  return finish()
end

local ids = call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, k)
local expired = #ids
local scores = {}
if expired < k then
  local due = call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, k - expired)
  for i = 1, #due, 2 do
    ids[#ids + 1] = due[i]
    scores[#ids] = due[i + 1]
  end
end

-- Bodies are read in portions, so that large ones are not read in vain.
local records, states, bytes = {}, {}, 0
local taken = 0
while taken < #ids and bytes < tonumber(ARGV[7]) do
  local from, to = taken, math.min(#ids, taken + 64)
  local found = call('HMGET', KEYS[3], unpack(ids, taken + 1, to))
  local stated = call('HMGET', KEYS[4], unpack(ids, taken + 1, to))
  for i = from + 1, to do
    records[i], states[i] = found[i - from], stated[i - from]
    if bytes >= tonumber(ARGV[7]) then break end
    bytes = bytes + (records[i] and #records[i] or 0)
    taken = i
  end
end

local fresh = token .. ' - 0 0 '
local end_of_lease = format('%d', now + tonumber(ARGV[5]))
local from_due, from_run, leases, texts, forget = {}, {}, {}, {}, {}
local dead, freed, claimed = {}, {}, { ARGV[2] }
local t, c, d = 0, 0, 0 -- of texts, claimed, from_due
for i = 1, taken do
  local id, record, state = ids[i], records[i], states[i]
  local died
  if not record then -- its body is gone: nothing can run
    reply[6] = reply[6] + 1
    forget[#forget + 1] = id
    if scores[i] then
      d = d + 1
      from_due[d] = id
    else
      from_run[#from_run + 1] = id
    end
  elseif not state and scores[i] and sub(record, 9, 10) == '::' then -- a fresh, plain job
    texts[t + 1], texts[t + 2] = id, 'R' .. sub(record, 1, 8) .. fresh .. scores[i] .. '  0:'
    t = t + 2
    reply[r + 1], reply[r + 2], reply[r + 3], reply[r + 4], reply[r + 5] = id, record, 0, 0, scores[i]
    r = r + 5
  else
    local s
    if state then
      s = parse(state)
    else
      s = { last = '-', attempts = 0, crashes = 0, due = format('%d', now), error = '',
            max = match(record, '^........(%d*):'), unique = unique_of(record) }
    end
    s.add, s.token = sub(record, 1, 8), token
    s.kind = s.unique == '' and 'R' or 'U'
    if scores[i] then
      s.due = scores[i]
    else
      s.crashes = s.crashes + 1
      if s.crashes >= tonumber(ARGV[6]) then
        died, s.kind, s.last = true, 'D', token
        s.error = 'worker died: the lease ran out ' .. format('%d', s.crashes) .. ' times'
        if s.unique ~= '' then freed[#freed + 1], freed[#freed + 2] = s.unique, id end
        reply[5] = reply[5] + 1
        dead[#dead + 1], dead[#dead + 2] = format('%d', now), id
        from_run[#from_run + 1] = id
      end
    end
    texts[t + 1], texts[t + 2] = id, pack(s)
    t = t + 2
    if not died then deliver(id, record, s.attempts, s.crashes, s.due) end
  end
  if record and not died then
    c = c + 1
    leases[2 * c - 1], leases[2 * c] = end_of_lease, id
    claimed[c + 1] = id
    if scores[i] then
      d = d + 1
      from_due[d] = id
    end
  end
end

-- The first write is one that Redis lets pass when memory is short: running jobs
-- is what gives memory back.
if taken > 0 or again then call('UNLINK', KEYS[10]) end
write('ZREM', KEYS[1], from_due)
write('ZREM', KEYS[2], from_run)
write('ZADD', KEYS[2], leases)
write('HSET', KEYS[4], texts)
write('ZADD', KEYS[5], dead)
write('HDEL', KEYS[4], forget)
free_unique(freed)
if taken > 0 or again then
  call('RPUSH', KEYS[10], unpack(claimed))
  call('PEXPIRE', KEYS[10], 60000)
end

if ARGV[8] == '1' then
  local old = call('ZRANGEBYSCORE', KEYS[5], '-inf', now - tonumber(ARGV[9]), 'LIMIT', 0, 100)
  write('ZREM', KEYS[5], old)
  write('HDEL', KEYS[3], old)
  write('HDEL', KEYS[4], old)
end
return finish()
