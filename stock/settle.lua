-- Settles a batch of calls on one activity, in order, each with its own verdict.
--
-- KEYS     1 levels hash, 2 journal stream, 3 events stream, 4 holds hash,
--          5 limits hash, 6 eligible set, 7 base of the orders hashes
-- Derived  KEYS[7]:<generation>, the orders hashes; which generation is current
--          stands in KEYS[1], and the two that are read are read before any write
-- ARGV     1 resend (1: an earlier attempt of this same call may still arrive),
--          2 nonce of the call, which begins with a random number, 3 number of its
--          ops before the first one here, 4 number of ops n, 5 number of SKUs m,
--          6 hold ms, 7 retention ms, 8 opens ms, 9 closes ms (0: never), 10 units
--          per user, 11 units per user and SKU (0: no limit), 12 eligible users only
--          (0, 1), 13 users given (0, 1), 14 ms that a sink may be behind (0: any); then m
--          SKU fields, n record fields, n bodies, n shapes, and n users if 13 says so.
--          A shape is the verb and then <index of SKU>x<qty>; repeated, or the reason
--          of a cancel. A '!' behind says that a partial order must not do without this
--          SKU; moved.lua has the shapes of its verbs
-- Returns  server time us, when the next hold is due in ms (0: none), crossings
--          {sku, version, left, …}, then a verdict per op: 0, or {code, …} as in
--          settle.go
-- Retry    token: the record of the order or restock id answers the second run;
--          confirm, cancel, expire and load compare the state they find
--
-- Formats, which record.go reads too. A netstring is <len>:<bytes>. The field of an
-- order is netstring(id), of a restock <len>+<id>, of a SKU ':' sku. Items are
-- netstring(sku) <qty>; repeated, ended by a '.'. A body is verb netstring(user)
-- items. A record is state due ';' body, or state due '/' netstring(items granted)
-- body. A level is "left held sold initial version". A journal entry is p the entry
-- before, t server ms, h hold ms (0: nothing reserved) and o the ops: verb field
-- body, and netstring(reason) after a cancel; 'V' netstring(sku) <version> <left>.
-- for a crossing. An id is the clock's millisecond and a random number, or a random step
-- beyond the last one of that millisecond: a server whose clock lags lives through
-- milliseconds of the journal that it lost, and its entries must not be taken for those
-- that a sink has.

-- Deciding --------------------------------------------------------------------

local due_text = ''
local reserved = false

local reply = { us, due, crossings }
local held, ended, settled = {}, {}, {} -- records that will be written, and holds that end

if plenty then
  local kept -- what the record of a hold begins with
  local h, d = 0, 0
  for i = 1, n do
    local field, body, op = ARGV[fields_at + i], ARGV[bodies_at + i], shapes[ARGV[shapes_at + i]]
    if op.reserve then
      kept = kept or 'R' .. format('%d', now + tonumber(ARGV[6])) .. ';'
      journal[i] = 'R' .. field .. body
      held[h + 1], held[h + 2] = field, kept .. body
      h = h + 2
    else
      journal[i] = 'D' .. field .. body
      settled[d + 1], settled[d + 2] = field, 'D;' .. body
      d = d + 2
    end
    reply[3 + i] = 0
  end
  for _, op in pairs(shapes) do
    local items = op.items
    for k = 1, #items, 2 do
      local level, q = levels[items[k]], items[k + 1] * op.count
      level.left, level.dirty = level.left - q, true
      if op.reserve then level.held = level.held + q else level.sold = level.sold + q end
    end
  end
  reserved = h > 0
  open = open + h / 2
else
  -- Why nothing can be ordered at all, or nil.
  local function shut(i)
    if halted then return { 3, halted } end
    if full then return { 11 } end
    if ARGV[8] ~= '0' and now < tonumber(ARGV[8]) then return { 4 } end
    if ARGV[9] ~= '0' and now >= tonumber(ARGV[9]) then return { 5 } end
    if eligible and eligible[i] == 0 then return { 6 } end
  end

  local function order(i, field, body, op)
    local r = records[field]
    if r then
      local verdict
      if fresh then -- settled by this very batch
        local was = match(r, '^[DR]%d*;(.*)$')
        verdict = was and (was == body and { 1, r } or { 2 })
      else
        verdict = replayed(i, current(field), body)
      end
      if verdict then return verdict end
    end
    local no = shut(i)
    if no then return refuse(i, field, no) end

    local user = limited and ARGV[users_at + i]
    local items, partial = op.items, false
    if op.verb == 'P' or op.verb == 'Q' then
      local total
      items, total, no = what_is_there(user, items, op.must)
      if no and total == 0 then return refuse(i, field, no) end
      partial = no ~= nil
    else
      no = refusal(user, items, op.total)
      if no then return refuse(i, field, no) end
    end

    local state = 'D'
    if op.reserve then
      if not reserved then
        reserved, due_text = true, format('%d', now + tonumber(ARGV[6]))
      end
      state = 'R' .. due_text
    end
    if partial then
      local granted = pack_items(items)
      local p = select(2, user_of(body))
      note(op.reserve and 'R' or 'D', field, sub(body, 1, p - 1) .. granted)
      put(field, state .. '/' .. #granted .. ':' .. granted .. body)
    else
      note(op.reserve and 'R' or 'D', field, body)
      put(field, state .. ';' .. body)
    end
    for k = 1, #items, 2 do
      local q = items[k + 1]
      if op.reserve then move(items[k], -q, q, 0) else move(items[k], -q, 0, q) end
    end
    if limited then use(user, items, 1) end
    return partial and { 0, records[field] } or 0
  end

  for i = 1, n do
    local field, body, op = ARGV[fields_at + i], ARGV[bodies_at + i], shapes[ARGV[shapes_at + i]]
    local verb = op.verb
    if fresh then
      reply[3 + i] = order(i, field, body, op)
    elseif verb == 'C' then
      reply[3 + i] = confirm(field, body)
    elseif verb == 'X' then
      reply[3 + i] = cancel(field, body, op.reason)
    elseif verb == 'S' then
      reply[3 + i] = status(field, body)
    elseif verb == 'A' then
      reply[3 + i] = restock(i, field, body, op.items)
    elseif verb == 'L' then
      reply[3 + i] = load_stock(field, op.items)
    elseif moving and moved[verb] then
      reply[3 + i] = moved[verb](op)
    else
      reply[3 + i] = order(i, field, body, op)
    end
  end
end

-- Writing ---------------------------------------------------------------------

turn = turn and (n == 0 or #changed > 0)
local traced = moving and links_dirty['@gap']
if not (#journal > 0 or #changed > 0 or swept or turn or traced) then return reply end

-- What was not read yet is of the right type before the first write.
if #crossings > 0 then call('XLEN', KEYS[3]) end
if reserved and open == 0 then call('HLEN', KEYS[4]) end
if #journal > 0 then
  -- The first write: where memory is short, Redis refuses this one or none.
  local before, hold, ops = last, reserved and ARGV[6] or '0', table.concat(journal)
  local ms, seq = match(last, '^(%d+)-(%d+)$')
  local dice = tonumber(match(ARGV[2], '^%d+'))
  local id = now > tonumber(ms) and format('%d-%d', now, dice) or format('%s-%d', ms, seq + 1 + dice)
  last = redis.pcall('XADD', KEYS[2], id, 'p', before, 't', format('%d', now), 'h', hold, 'o', ops)
  if type(last) == 'table' then -- the stream is ahead of its head, or memory is short
    last = call('XADD', KEYS[2], '*', 'p', before, 't', format('%d', now), 'h', hold, 'o', ops)
  end
  if reserved and due == 0 then
    due, cursor = now + tonumber(ARGV[6]), before
    reply[2] = due
  end
end

local function write(command, key, list)
  for a = 1, #list, 2000 do call(command, key, unpack(list, a, math.min(#list, a + 1999))) end
end

for _, field in ipairs(changed) do
  local r = records[field]
  if sub(r, 1, 1) == 'R' then
    held[#held + 1], held[#held + 2] = field, r
    open = open + 1
  else
    settled[#settled + 1], settled[#settled + 2] = field, r
    if place[field] then
      ended[#ended + 1] = field
      open = open - 1
    end
  end
end
if turn then gen_at = now elseif now - gen_at >= retention then gen = gen - 1 end
local set = { '@', format('%d %d %d %d %d %s %s', gen, gen_at, us, due, open, cursor, last) }
for _, field in ipairs(level_names) do
  local level = levels[field]
  if level and level.dirty then
    set[#set + 1] = field
    set[#set + 1] = format('%d %d %d %d %d', level.left, level.held, level.sold, level.initial, level.version)
  end
end
if moving then
  for field in pairs(links_dirty) do set[#set + 1], set[#set + 2] = field, links[field] end
end
write('HSET', KEYS[1], set)
if #held > 0 then write('HSET', KEYS[4], held) end
if #ended > 0 then write('HDEL', KEYS[4], ended) end
if #settled > 0 then write('HSET', KEYS[7] .. ':' .. gen, settled) end
-- A generation is read for one more retention after the next began.
if turn then call('PEXPIRE', KEYS[7] .. ':' .. (gen - 1), retention + 60000) end
if limited then
  local uses = {}
  for field in pairs(used_dirty) do
    uses[#uses + 1], uses[#uses + 2] = field, format('%d', used[field])
  end
  write('HSET', KEYS[5], uses)
end
for c = 1, #crossings, 3 do
  call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 's', crossings[c],
    'v', format('%d', crossings[c + 1]), 'l', format('%d', crossings[c + 2]))
end
return reply
