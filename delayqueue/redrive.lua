-- Gives dead jobs a new life: due now, with no failures counted.
--
-- KEYS     1 to 8 see read.lua
-- ARGV     1 token of the call, 2 number of ids n; then n ids
-- Returns  how many of them were dead
-- Derived  none
-- Retry    token: the state of a redriven job names the call as what settled it last

local token, n, redriven = ARGV[1], tonumber(ARGV[2]), 0
local states = call('HMGET', KEYS[4], unpack(ARGV, 3, 2 + n))
local ids, due, texts, keys = {}, {}, {}, {}
for i = 1, n do
  local id, s = ARGV[2 + i], states[i] and parse(states[i])
  if s and s.last == token then
    redriven = redriven + 1
  elseif s and s.kind == 'D' then
    redriven = redriven + 1
    s.kind, s.token, s.last, s.attempts, s.crashes, s.due = 'W', '-', token, 0, 0, format('%d', now)
    ids[#ids + 1] = id
    due[#due + 1], due[#due + 2] = s.due, id
    texts[#texts + 1], texts[#texts + 2] = id, pack(s)
    if s.unique ~= '' then keys[#keys + 1], keys[#keys + 2] = s.unique, id end
  end
end
if #ids == 0 then return redriven end
local head = head_of(KEYS[1])
write('ZREM', KEYS[5], ids)
write('ZADD', KEYS[1], due)
write('HSET', KEYS[4], texts)
for i = 1, #keys, 2 do call('HSETNX', KEYS[6], keys[i], keys[i + 1]) end
wake(head, now)
return redriven
