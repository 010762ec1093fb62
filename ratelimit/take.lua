-- Decides calls on one key, in order, each on all limits or none.
--
-- What must hold: in any window of t us, units granted by a GCRA limit never exceed
-- burst + t / (us per unit); F, S and L have the bounds of limit.go. It would break if
-- a denied call were charged to one limit of several, if a figure were rounded, if
-- a key expired before its limits are ready, or if a clock that is set back forgot
-- the state. A forward step of the clock refills at most one burst.
--
-- KEYS     1 state of the key
-- Derived  none
-- ARGV     those of read.lua; then the number of runs, and per run: units n of one
--          call, calls k, longest wait in us (-1: a lease, of at most half of what
--          is there, nothing after a denial; it comes last). n = 0 only looks. A wait
--          needs k = 1 and GCRA limits only
-- Returns  server time us; per run the calls granted, units left then, the limit
--          that has least or denied (from 1), us until it is ready, us until the
--          first call that was not granted could be, or until the one that waits
--          may act; then the state, if the last run waits or leases, and the one
--          that a turn that lies ahead found
-- Retry    bounded: a second run charges once more. Denied calls write nothing, but
--          for the first after the clock was set back

-- Units that every limit has now, and the limit that has least.
local function available()
  local least, which = nil, 1
  for i = 1, m do
    local l, n = limits[i], 0
    local kind = l.kind
    if kind == 'G' then
      local us, part = now + l.full - l.tat, l.full_part - l.part
      if part < 0 then us, part = us - 1, part + l.c end
      if us >= 0 then
        n = floor((us * l.c + part) / l.unit)
        if l.burst * l.unit > 4503599627370496 then -- 2^52: the quotient may be one off
          local function costs(u) return u * l.a + floor(u * l.b / l.c), (u * l.b) % l.c end
          local w, f = costs(n)
          if w > us or (w == us and f > part) then n = n - 1 end
          w, f = costs(n + 1)
          if w < us or (w == us and f <= part) then n = n + 1 end
        end
      end
    elseif kind == 'S' then
      local rest = (l.window + 1) * l.a - now
      n = floor(((l.burst - l.used) * l.a - l.before * rest) / l.a)
      if n < 0 then n = 0 end
    else
      n = l.burst - l.used
    end
    if not least or n < least then least, which = n, i end
  end
  return least, which
end

-- Us until every limit has n units, and the limit that takes longest.
local function delay(n)
  local longest, which = 0, 1
  for i = 1, m do
    local l, us = limits[i], 0
    local kind = l.kind
    if kind == 'G' then
      local sum = l.part + n * l.b
      us = l.tat + n * l.a + floor(sum / l.c) - l.full - now
      if sum % l.c > l.full_part then us = us + 1 end
    elseif kind == 'F' then
      if l.used + n > l.burst then us = (l.window + 1) * l.a - now end
    elseif kind == 'S' then
      local rest = (l.window + 1) * l.a - now
      if l.used + n > l.burst then
        us = rest + math.max(0, l.a - floor((l.burst - n) * l.a / l.used))
      elseif l.before > 0 then
        us = rest - floor((l.burst - l.used - n) * l.a / l.before)
      end
    else
      local need, j = l.used + n - l.burst, 0
      while need > 0 do
        j = j + 1
        need = need - l.units[j]
        us = l.times[j] + l.a - now
      end
    end
    if us > longest then longest, which = us, i end
  end
  return longest, which
end

-- Takes n units from every limit, at a time that is now or, for GCRA, later.
local function charge(n, at)
  for i = 1, m do
    local l = limits[i]
    if l.kind == 'G' then
      if l.tat < at then l.tat, l.part = at, 0 end
      local sum = l.part + n * l.b
      l.tat, l.part = l.tat + n * l.a + floor(sum / l.c), sum % l.c
    else
      l.used = l.used + n
      if l.kind == 'L' then
        local last = #l.times
        if last > 0 and l.times[last] == now then
          l.units[last] = l.units[last] + n
        else
          l.times[last + 1], l.units[last + 1] = now, n
        end
      end
    end
  end
end

local before -- the state that a turn that lies ahead found
local reply, charged, denied, wait, j = { now, 0, 0, 0, 0, 0 }, false, false, 0, 1
local left, least = available()
for i = after + 1, after + 3 * tonumber(ARGV[after]), 3 do
  local n, k = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  wait, before = tonumber(ARGV[i + 2]), nil
  local granted, us = k, 0
  if n == 0 then
    if left == 0 then us = delay(1) end
  else
    if wait < 0 then left = denied and 0 or floor(left / 2) end -- the rest is for the others
    granted = math.min(k, floor(left / n))
    if granted > 0 then
      charge(granted * n, now)
      charged = true
    end
    left = left - granted * n
    if granted < k and wait >= 0 then
      us, least = delay(n)
      denied = true
      if wait > 0 and us <= wait then
        before = encode()
        charge(n, now + us)
        granted, charged = 1, true
        left, least = available()
      end
    end
  end
  reply[j + 1], reply[j + 2], reply[j + 3] = granted, left, least
  reply[j + 4], reply[j + 5] = math.max(0, ready(limits[least]) - now), us
  j = j + 5
end
if charged or back then -- denials that did not note the clock would all begin anew
  local state = write()
  if charged and wait ~= 0 then reply[j + 1], reply[j + 2] = state, before end
end
return reply
