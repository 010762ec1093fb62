-- Prelude: the state of one key and the arithmetic of its limits, for take.lua and
-- giveback.lua. meter.go is the same in Go, for limiters without Redis.
--
-- ARGV: 1 number of limits m, then five per limit: algorithm, a, b, c, burst.
--   G  GCRA: one unit refills in a + b/c us (0 <= b < c)
--   F  fixed window, S sliding window, L log: a is the window in us
-- The state is a string: the time t of the last write in us, then per limit
--   G  <tat - t> <fraction of tat in 1/c us>     TAT: when all is refilled
--   F  <units in the window of t>
--   S  <units in the window before that of t> <units in that of t>
--   L  <us before t>:<units>,… oldest first, or -
-- All figures are integers below 2^53, so that nothing is ever rounded. Times are
-- kept relative to t: when the clock was set back, the distances still hold.

local call, format, floor = redis.call, string.format, math.floor

-- The state first: where time goes on while a script runs, it must not have expired
-- after the time that is used.
local raw = call('GET', KEYS[1])
local time = call('TIME')
local real = time[1] * 1000000 + time[2]
local now, t, stored = real, real, {}
local back = false -- the clock was set back
if raw then
  local tat, part
  t, tat, part = string.match(raw, '^(%d+) (%d+) (%d+)$') -- one GCRA limit: the usual state
  if t then
    stored[1], stored[2] = tat, part
  else
    local rest
    t, rest = string.match(raw, '^(%d+) (.*)$')
    for word in string.gmatch(rest, '%S+') do stored[#stored + 1] = word end
  end
  t = tonumber(t)
  if t > now + 1000000 then
    t, back = now, true -- go on from where the state was
  elseif t > now then
    now = t -- time does not go backwards
  end
end

local m = tonumber(ARGV[1])
local limits = {}
local after = 2 -- where the arguments go on after the limits
do
  local field = 1
  for i = 1, m do
    local kind, a, burst = ARGV[after], tonumber(ARGV[after + 1]), tonumber(ARGV[after + 4])
    local l
    if kind == 'G' then
      local b, c = tonumber(ARGV[after + 2]), tonumber(ARGV[after + 3])
      local tat, part = now, 0
      if raw and t + stored[field] >= now then tat, part = t + stored[field], tonumber(stored[field + 1]) end
      l = {
        kind = kind, a = a, b = b, c = c, unit = a * c + b, burst = burst, tat = tat, part = part,
        full = burst * a + floor(burst * b / c), full_part = (burst * b) % c,
      }
      field = field + 2
    elseif kind == 'L' then
      l = { kind = kind, a = a, burst = burst, times = {}, units = {}, used = 0 }
      if raw then
        for age, units in string.gmatch(stored[field], '(%d+):(%d+)') do
          local at = t - tonumber(age)
          if at + a > now then
            local u = tonumber(units)
            l.times[#l.times + 1], l.units[#l.units + 1], l.used = at, u, l.used + u
          end
        end
      end
      field = field + 1
    else
      l = { kind = kind, a = a, burst = burst, window = floor(now / a), before = 0, used = 0 }
      local passed = l.window - floor(t / a)
      if kind == 'F' then
        if raw and passed == 0 then l.used = tonumber(stored[field]) end
        field = field + 1
      else
        if raw and passed == 0 then
          l.before, l.used = tonumber(stored[field]), tonumber(stored[field + 1])
        elseif raw and passed == 1 then
          l.before = tonumber(stored[field + 1])
        end
        field = field + 2
      end
    end
    limits[i], after = l, after + 5
  end
end

-- When all of a limit is there again, in us.
local function ready(l)
  local kind = l.kind
  if kind == 'G' then return l.part > 0 and l.tat + 1 or l.tat end
  if kind == 'L' then return #l.times > 0 and l.times[#l.times] + l.a or now end
  if l.used > 0 then return (l.window + (kind == 'S' and 2 or 1)) * l.a end
  return l.before > 0 and (l.window + 1) * l.a or now
end

-- The state as it is stored.
local function encode()
  local state = format('%d', now)
  for i = 1, m do
    local l = limits[i]
    local kind = l.kind
    if kind == 'G' then
      state = state .. format(' %d %d', l.tat - now, l.part)
    elseif kind == 'F' then
      state = state .. format(' %d', l.used)
    elseif kind == 'S' then
      state = state .. format(' %d %d', l.before, l.used)
    else
      local log = {}
      for j = 1, #l.times do log[j] = format('%d:%d', now - l.times[j], l.units[j]) end
      state = state .. ' ' .. (#log > 0 and table.concat(log, ',') or '-')
    end
  end
  return state
end

-- Writes the state, which some limit keeps until it is ready.
local function write()
  local state, last = encode(), now
  for i = 1, m do
    local at = ready(limits[i])
    if at > last then last = at end
  end
  call('SET', KEYS[1], state, 'PX', math.ceil((last - real) / 1000) + 1)
  return state
end
