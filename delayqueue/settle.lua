-- Ends deliveries: each job is done, runs again later, or is dead.
--
-- KEYS     1 to 8 see read.lua
-- ARGV     1 number of deliveries n, 2 verdict window ms, 3 max attempts of jobs that
--          have none of their own; then n ids, n tokens, n verbs (A ack, R retry,
--          S snooze, D discard), n delays us, n errors
-- Returns  a code per delivery: 0 as asked, 1 the lease is lost and nothing changed,
--          2 the job is dead after its last attempt
-- Derived  KEYS[7]:<generation>, the verdict hashes, numbered by the server's clock
-- Retry    token: the state or the verdict of the job names the delivery that
--          settled it last

local n, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local ids_at, tokens_at, verbs_at, delays_at, errors_at = 3, 3 + n, 3 + 2 * n, 3 + 3 * n, 3 + 4 * n
local states = call('HMGET', KEYS[4], unpack(ARGV, ids_at + 1, ids_at + n))

local leave, ended, kept, texts, due, dead, freed = {}, {}, {}, {}, {}, {}, {}
local reply, gone, earliest = {}, nil, nil
local left, acked = 0, 0 -- of leave and ended: # searches

-- What is told to a delivery that does not hold the job: did it settle it before?
local function late(i, state)
  local id, token = ARGV[ids_at + i], ARGV[tokens_at + i]
  if state then
    local s = parse(state)
    if s.last ~= token then return 1 end
    return s.kind == 'D' and ARGV[verbs_at + i] == 'R' and 2 or 0
  end
  gone = gone or verdicts(window, { unpack(ARGV, ids_at + 1, ids_at + n) })
  return gone[id] and sub(gone[id], 10) == token and 0 or 1
end

for i = 1, n do
  local id, token, verb, state = ARGV[ids_at + i], ARGV[tokens_at + i], ARGV[verbs_at + i], states[i]
  local kind = state and sub(state, 1, 1)
  if not (kind == 'R' or kind == 'U') or sub(state, 10, 10 + #token) ~= token .. ' ' then
    reply[i] = late(i, state)
  else
    reply[i] = 0
    left = left + 1
    leave[left] = id
    if verb == 'A' then
      acked = acked + 1
      ended[acked] = id
      kept[2 * acked - 1], kept[2 * acked] = id, 'A' .. sub(state, 2, 9) .. token
      if kind == 'U' then freed[#freed + 1], freed[#freed + 2] = parse(state).unique, id end
    else
      local s = parse(state)
      s.token, s.last, s.kind = '-', token, 'W'
      if verb ~= 'S' then
        s.error = ARGV[errors_at + i]
        s.attempts = s.attempts + 1
        local max = tonumber(s.max ~= '' and s.max or ARGV[3])
        if verb == 'D' or s.attempts >= max then
          s.kind = 'D'
          if verb == 'R' then reply[i] = 2 end
          dead[#dead + 1], dead[#dead + 2] = format('%d', now), id
          if s.unique ~= '' then freed[#freed + 1], freed[#freed + 2] = s.unique, id end
        end
      end
      if s.kind == 'W' then
        local at = after(tonumber(ARGV[delays_at + i]))
        if not earliest or at < earliest then earliest = at end
        s.due = format('%d', at)
        due[#due + 1], due[#due + 2] = s.due, id
      end
      texts[#texts + 1], texts[#texts + 2] = id, pack(s)
    end
  end
end

local head = earliest and head_of(KEYS[1])
-- The first write is one that Redis lets pass when memory is short.
write('ZREM', KEYS[2], leave)
write('HDEL', KEYS[3], ended)
write('HDEL', KEYS[4], ended)
write('ZADD', KEYS[1], due)
write('HSET', KEYS[4], texts)
write('ZADD', KEYS[5], dead)
keep_verdicts(window, kept)
free_unique(freed)
wake(head, earliest)
return reply
