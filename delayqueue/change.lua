-- Cancels or reschedules a job by its id.
--
-- KEYS     1 to 8 see read.lua
-- ARGV     1 resend, 2 verb (X cancel, T reschedule), 3 id, 4 new due ms, 5 verdict
--          window ms
-- Returns  0 done, 1 active, 2 finished, 3 cancelled before, 4 dead, 5 not found,
--          6 active or finished now, but an attempt before may have moved it
-- Derived  KEYS[7]:<generation>, the verdict hashes, numbered by the server's clock
-- Retry    state: a cancelled job leaves a verdict, a new due time is absolute

local verb, id, window = ARGV[2], ARGV[3], tonumber(ARGV[5])
local state = call('HGET', KEYS[4], id)
local kind = state and sub(state, 1, 1)
if kind == 'R' or kind == 'U' then return verb == 'T' and ARGV[1] == '1' and 6 or 1 end
local record = call('HGET', KEYS[3], id)
if not record then
  local gone = verdicts(window, { id })[id]
  local what = gone and sub(gone, 1, 1)
  if what == 'X' then return verb == 'X' and 0 or 3 end
  if what == 'A' then return verb == 'T' and ARGV[1] == '1' and 6 or 2 end
  return 5
end
if verb == 'T' then
  if kind == 'D' then return 4 end
  local head, due = head_of(KEYS[1]), tonumber(ARGV[4])
  call('ZADD', KEYS[1], ARGV[4], id)
  wake(head, due)
  return 0
end
local key = unique_of(record)
call('ZREM', KEYS[1], id)
call('ZREM', KEYS[5], id)
call('HDEL', KEYS[3], id)
call('HDEL', KEYS[4], id)
keep_verdicts(window, { id, 'X' .. sub(record, 1, 8) })
if key ~= '' then free_unique({ key, id }) end
return 0
