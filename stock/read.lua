-- Prelude of settle.lua, whose header explains KEYS and ARGV: reads what the batch
-- needs to know, each structure with one command for all its ops.

local call, sub, match, format = redis.call, string.sub, string.match, string.format

local HEAD = 14
local n, m = tonumber(ARGV[4]), tonumber(ARGV[5])
local retention = tonumber(ARGV[7])
local fields_at = HEAD + m
local bodies_at, shapes_at, users_at = fields_at + n, fields_at + 2 * n, fields_at + 3 * n
local limited = ARGV[10] ~= '0' or ARGV[11] ~= '0'

local clock = call('TIME')
local us = clock[1] * 1000000 + clock[2]
local got = call('HMGET', KEYS[1], '@', '@halt', '@journal', unpack(ARGV, HEAD + 1, fields_at))
local halted = got[2]
local gen, gen_at, seen, due, open, cursor, last = 0, 0, 0, 0, 0, '0-0', '0-0'
if got[1] then
  gen, gen_at, seen, due, open, cursor, last =
    match(got[1], '^(%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (%S+)$')
  gen, gen_at, seen = tonumber(gen), tonumber(gen_at), tonumber(seen)
  due, open = tonumber(due), tonumber(open)
end
-- Time does not go backwards here, unless it was a second ahead: then the clock
-- had been set wrong and is right now.
if us < seen and seen - us <= 1000000 then us = seen end
local now = math.floor(us / 1000)
if not got[1] or gen_at > now then gen_at = now end
-- The generation in which records of orders are kept turns once a retention.
local turn = now - gen_at >= retention
if turn then gen = gen + 1 end

-- Where the sinks of the journal are; feed.lua keeps it.
local lowest = '0-0'
if got[3] then
  local forked
  lowest, forked = match(got[3], '^(%S+) (%S+)')
  -- (an error that says that nothing ran, and that it may pass)
  if sub(forked, 1, 1) == '!' then return redis.error_reply('TRYAGAIN the activity is being rebuilt') end
  if forked ~= '-' then halted = 'the journal forked at ' .. forked .. ': Rebuild' end
end
-- Sinks are behind by the age of the oldest entry that one of them lacks, which is
-- less than the age of its checkpoint: mostly there is no need to look.
local max_lag, full = tonumber(ARGV[14]), false
if max_lag > 0 and lowest ~= last and now - tonumber(match(lowest, '^%d+')) > max_lag then
  local first = call('XRANGE', KEYS[2], '(' .. lowest, '+', 'COUNT', 1)[1]
  full = first and now - tonumber(first[2][4]) > max_lag
end

-- levels[field] is false where the SKU was not loaded.
local levels, level_names = {}, {}
local function keep_level(field, packed)
  local level = false
  if packed then
    local left, held, sold, initial, version = match(packed, '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
    level = { left = tonumber(left), held = tonumber(held), sold = tonumber(sold),
              initial = tonumber(initial), version = tonumber(version), dirty = false }
  end
  levels[field] = level
  level_names[#level_names + 1] = field
end
for i = 1, m do keep_level(ARGV[HEAD + i], got[3 + i]) end

-- records[field] is what is known of an id; place[field] is true where it is a hold.
local records, place, found = {}, {}, false
local function read_records(fields, from, to)
  local function merge(key, is_hold)
    local r = call('HMGET', key, unpack(fields, from, to))
    for i = from, to do
      local record, field = r[i - from + 1], fields[i]
      if record and not records[field] then
        records[field], place[field], found = record, is_hold, true
      end
    end
  end
  if open > 0 then merge(KEYS[4], true) end
  if not turn then merge(KEYS[7] .. ':' .. gen, false) end
  if gen > 0 then merge(KEYS[7] .. ':' .. (gen - 1), false) end
end
if n > 0 then read_records(ARGV, fields_at + 1, bodies_at) end

-- shapes[s] is the op that the shape s stands for; a batch has few different ones.
-- fresh stays true while all are orders, all or nothing; moving becomes true where
-- one moves stock between buckets.
local shapes, fresh, moving = {}, true, false
for i = shapes_at + 1, users_at do
  local s = ARGV[i]
  local known = shapes[s]
  if known then
    known.count = known.count + 1
  else
    local verb, items, total = sub(s, 1, 1), {}, 0
    local op = { verb = verb, items = items, total = 0, count = 1, reserve = verb == 'R' or verb == 'Q', reason = '' }
    if verb ~= 'D' and verb ~= 'R' then
      fresh = false
      if verb == 'G' or verb == 'T' or verb == 'Z' then
        moving = true
        op.own, op.peer, op.seq, op.after = match(s, '^.(%d+)>(%d+)#(%d+)@?([%d-]*)')
      elseif verb ~= 'X' then
        op.must = {}
        for index in string.gmatch(s, '(%d+)x%d+;!') do op.must[ARGV[HEAD + index]] = true end
      end
    end
    if verb == 'X' then
      op.reason = sub(s, 2)
    else
      for index, qty in string.gmatch(s, '(%d+)x(%d+)') do
        qty = tonumber(qty)
        items[#items + 1] = ARGV[HEAD + index]
        items[#items + 1] = qty
        total = total + qty
      end
    end
    op.total = total
    shapes[s] = op
  end
end

-- Holds that came due. The journal is their schedule: holds of one duration come
-- due in the order in which they were journalled. cursor is the last entry that
-- holds nothing any more, due the time of the first one that does.
local expired = {}
local swept = due > 0 and due <= now
if swept then
  local budget = 256
  for _ = 1, 16 do
    local entries = call('XRANGE', KEYS[2], '(' .. cursor, '+', 'COUNT', 8)
    for _, e in ipairs(entries) do
      local f = e[2] -- p, t, h, o and their values
      local held_for = tonumber(f[6])
      if held_for > 0 then
        if budget <= 0 then break end
        due = tonumber(f[4]) + held_for
        if due > now then break end
        local ops, p = f[8], 1
        while p <= #ops do
          local verb, len, a = match(ops, '^(%a)(%d+)[:+]()', p)
          if verb == 'R' then
            expired[#expired + 1] = sub(ops, p + 1, a + len - 1)
            budget = budget - 1
          end
          p = a + len
          if verb == 'V' then
            p = match(ops, '^[^.]*%.()', p)
          else
            -- the body: verb, user, items
            len, a = match(ops, '^.(%d+):()', p)
            p = a + len
            while sub(ops, p, p) ~= '.' do
              len, a = match(ops, '^(%d+):()', p)
              p = match(ops, '^%d+;()', a + len)
            end
            p = p + 1
            if verb == 'X' or verb == 'T' then
              len, a = match(ops, '^(%d+):()', p)
              p = a + len
            end
          end
        end
      end
      cursor = e[1]
    end
    if due > now or budget <= 0 then break end
    if #entries < 8 then due = 0 break end
  end
  for a = 1, #expired, 1000 do read_records(expired, a, math.min(#expired, a + 999)) end
end

local eligible
if ARGV[12] == '1' and n > 0 then
  eligible = call('SMISMEMBER', KEYS[6], unpack(ARGV, users_at + 1, users_at + n))
end

-- All ops are orders of ids not seen before: what follows from limits and records
-- need not be set up, which is a third of the cost of a lone order.
-- (miniredis's Lua gets "a and not b and not c" wrong)
fresh = fresh and not (found or limited or swept)

-- Moreover nothing can be refused and nothing sells out: the usual batch of a sale
-- that goes on. It is only written down, for a quarter less.
local plenty = fresh and not (turn or halted or eligible or full)
  and (ARGV[8] == '0' or now >= tonumber(ARGV[8])) and (ARGV[9] == '0' or now < tonumber(ARGV[9]))
if plenty then
  for _, op in pairs(shapes) do
    local items = op.items
    for k = 1, #items, 2 do
      local level = levels[items[k]]
      if level then level.spare = (level.spare or level.left) - items[k + 1] * op.count end
      plenty = plenty and level and level.spare > 0
    end
  end
  local there = {} -- not twice the same id
  for i = fields_at + 1, n > 1 and bodies_at or fields_at do
    if there[ARGV[i]] then plenty = false end
    there[ARGV[i]] = true
  end
end
