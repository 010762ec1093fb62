-- Prelude: the state of one key and the arithmetic of its limits, for take.lua and
-- giveback.lua. rule.go is the same in Go, for limiters without Redis.
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

local time = call('TIME')
local real = tonumber(time[1]) * 1000000 + tonumber(time[2])
local raw = call('GET', KEYS[1])
local now, t, stored = real, real, {}
if raw then
  for word in string.gmatch(raw, '%S+') do stored[#stored + 1] = word end
  t = tonumber(stored[1])
  if t > now + 1000000 then
    t = now -- the clock was set back: go on from where the state was
  elseif t > now then
    now = t -- time does not go backwards
  end
end

local m = tonumber(ARGV[1])
local limits = {}
local after = 2 -- where the arguments go on after the limits
do
  local field = 2
  for i = 1, m do
    local kind, a = ARGV[after], tonumber(ARGV[after + 1])
    local l = { kind = kind, a = a, burst = tonumber(ARGV[after + 4]) }
    if kind == 'G' then
      local b, c = tonumber(ARGV[after + 2]), tonumber(ARGV[after + 3])
      l.b, l.c, l.unit = b, c, a * c + b
      l.full, l.full_part = l.burst * a + floor(l.burst * b / c), (l.burst * b) % c
      l.tat, l.part = now, 0
      if raw then
        local tat = t + tonumber(stored[field])
        if tat >= now then l.tat, l.part = tat, tonumber(stored[field + 1]) end
      end
      field = field + 2
    elseif kind == 'L' then
      l.times, l.units, l.used = {}, {}, 0
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
      l.window = floor(now / a)
      local passed = l.window - floor(t / a)
      l.before, l.used = 0, 0
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

-- Writes the state, which some limit keeps until it is ready.
local function write()
  local out, last = { format('%d', now) }, now
  for i = 1, m do
    local l = limits[i]
    local kind, at = l.kind, ready(l)
    if at > last then last = at end
    if kind == 'G' then
      out[#out + 1] = format('%d %d', l.tat - now, l.part)
    elseif kind == 'F' then
      out[#out + 1] = format('%d', l.used)
    elseif kind == 'S' then
      out[#out + 1] = format('%d %d', l.before, l.used)
    else
      local log = {}
      for j = 1, #l.times do log[j] = format('%d:%d', now - l.times[j], l.units[j]) end
      out[#out + 1] = #log > 0 and table.concat(log, ',') or '-'
    end
  end
  local state = table.concat(out, ' ')
  call('SET', KEYS[1], state, 'PX', format('%d', math.ceil((last - real) / 1000) + 1))
  return state
end
