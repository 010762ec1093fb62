-- Gives units back that were taken and not used, if nothing happened to the key since.
--
-- What must hold: giving back never mints. Once others were granted units above those
-- that come back, the order of their times cannot be undone, so that it is all or
-- nothing: the state must still be the one that the taking left. Units that were
-- refilled meanwhile do not come back a second time. What was taken now is subtracted;
-- a turn that lay ahead moved every limit's TAT up to its time first, so that what it
-- found is restored.
--
-- KEYS     1 state of the key
-- Derived  none
-- ARGV     those of read.lua, GCRA limits only; then the state after the taking, the
--          units to subtract, and the state that a turn found, or nothing
-- Returns  1 if they were given back, else 0
-- Retry    state: a second run finds another state than the one it was given

if not raw or raw ~= ARGV[after] then return 0 end
local n = tonumber(ARGV[after + 1])
local i = 0
for tat, part in string.gmatch(ARGV[after + 2], ' (%d+) (%d+)') do
  i = i + 1
  limits[i].tat, limits[i].part = t + tat, tonumber(part)
end
local keep = false
for i = 1, m do
  local l = limits[i]
  local part = l.part - (n * l.b) % l.c
  l.tat = l.tat - n * l.a - floor(n * l.b / l.c)
  if part < 0 then l.tat, part = l.tat - 1, part + l.c end
  l.part = part
  if l.tat < now then l.tat, l.part = now, 0 end
  if l.tat > now or l.part > 0 then keep = true end
end
if keep then write() else call('UNLINK', KEYS[1]) end
return 1
