-- Stores jobs, each with its own verdict.
--
-- KEYS     1 to 8 see read.lua, 9 periodic hash (name → last tick ms)
-- ARGV     1 number of jobs n, 2 verdict window ms, 3 unique keys given (0, 1),
--          4 periodic name or empty, 5 its tick before, 6 its new tick; then n ids,
--          n records, n times (a<ms> or d<us from now>), and if 3 says so n unique
--          keys (empty: none) and n policies (J reject, P replace, E extend)
-- Returns  server time us, then a verdict per job: 0 stored, {1, what} the id is
--          taken by a job (P) or verdict (A, X), {2, id} refused for a job with the
--          same unique key, {3, id} that job replaced, {4, id} extended; or {5, tick}
--          alone, if the periodic name was not at the tick before
-- Derived  KEYS[7]:<generation>, the verdict hashes, numbered by the server's clock
-- Retry    token: the record or the verdict of the id holds the token of the Add

local n, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local uniques = ARGV[3] == '1'
local ids_at, records_at, times_at, uniques_at, policies_at = 6, 6 + n, 6 + 2 * n, 6 + 3 * n, 6 + 4 * n

if ARGV[4] ~= '' then
  local tick = call('HGET', KEYS[9], ARGV[4]) or ''
  if tick ~= ARGV[5] then return { us, { 5, tick } } end
end
if n == 0 then
  call('HSET', KEYS[9], ARGV[4], ARGV[6])
  return { us }
end

local have = call('HMGET', KEYS[3], unpack(ARGV, ids_at + 1, ids_at + n))
local gone = verdicts(window, { unpack(ARGV, ids_at + 1, ids_at + n) })
local head = head_of(KEYS[1])

-- What this batch has changed so far.
local record_now, due_now, holder_now, forget = {}, {}, {}, {}
local order, keys = {}, {}
local earliest

local function time_of(i)
  local t = ARGV[times_at + i]
  if sub(t, 1, 1) == 'a' then return tonumber(sub(t, 2)) end
  return after(tonumber(sub(t, 2)))
end

local function put(id, record, due)
  if not record_now[id] then order[#order + 1] = id end
  record_now[id], due_now[id] = record, due
  if not earliest or due < earliest then earliest = due end
end

-- The answer of a unique key that somebody holds, or nil if the job is to be stored.
local function held(i, key, policy)
  local holder = holder_now[key] or call('HGET', KEYS[6], key)
  local record = holder and (record_now[holder] or call('HGET', KEYS[3], holder))
  if not record then return end
  local mine = ARGV[records_at + i]
  local code = policy == 'E' and 4 or 3
  if sub(record, 1, 8) == sub(mine, 1, 8) then return { code, holder } end
  if policy == 'J' then return { 2, holder } end
  if not (due_now[holder] or call('ZSCORE', KEYS[1], holder)) then return end -- it runs
  if policy == 'E' then
    put(holder, sub(mine, 1, 8) .. sub(record, 9), time_of(i))
  else
    put(holder, mine, time_of(i))
    forget[#forget + 1] = holder
  end
  return { code, holder }
end

local reply = { us }
for i = 1, n do
  local id, record = ARGV[ids_at + i], ARGV[records_at + i]
  local there = record_now[id] or have[i]
  local answer
  if there then
    answer = sub(there, 1, 8) == sub(record, 1, 8) and 0 or { 1, 'P' }
  elseif gone[id] then
    answer = sub(gone[id], 2, 9) == sub(record, 1, 8) and 0 or { 1, sub(gone[id], 1, 1) }
  end
  local key = uniques and ARGV[uniques_at + i] or ''
  if not answer and key ~= '' then answer = held(i, key, ARGV[policies_at + i]) end
  if not answer then
    put(id, record, time_of(i))
    if key ~= '' then
      holder_now[key] = id
      keys[#keys + 1], keys[#keys + 2] = key, id
    end
    answer = 0
  end
  reply[1 + i] = answer
end

if #order > 0 then
  local due, records = {}, {}
  for i = 1, #order do
    local id = order[i]
    due[2 * i - 1], due[2 * i] = format('%d', due_now[id]), id
    records[2 * i - 1], records[2 * i] = id, record_now[id]
  end
  write('ZADD', KEYS[1], due) -- the first write: where memory is short, Redis refuses this one or none
  write('HSET', KEYS[3], records)
  write('HSET', KEYS[6], keys)
  write('HDEL', KEYS[4], forget)
  wake(head, earliest)
end
if ARGV[4] ~= '' then call('HSET', KEYS[9], ARGV[4], ARGV[6]) end
return reply
