-- Prelude of settle.lua: what orders of new ids do not need. It reads what the
-- records name, and knows the verbs that act on what was settled before.

local current, replayed, use, what_is_there, pack_items, user_of
local confirm, cancel, status, restock, load_stock

if not fresh then
  -- state, due, body, and the items granted where not all were
  local function open_record(r)
    local state, d, separator, at = match(r, '^(%a)(%d*)([;/])()')
    if separator == ';' then return state, tonumber(d) or 0, sub(r, at) end
    local len, p = match(r, '^(%d+):()', at)
    return state, tonumber(d) or 0, sub(r, p + len), sub(r, p, p + len - 1)
  end
  -- the user of a body, and where its items begin
  function user_of(body)
    local len, p = match(body, '^.(%d+):()')
    return sub(body, p, p + len - 1), p + len
  end
  -- {sku field, qty, sku field, qty, …}
  local function items_of(body, granted)
    local out, k, text, p = {}, 0, granted, 1
    if not granted then
      text = body
      p = select(2, user_of(body))
    end
    while p < #text do -- a '.' ends it
      local len, a = match(text, '^(%d+):()', p)
      local qty, b = match(text, '^(%d+);()', a + len)
      out[k + 1], out[k + 2] = ':' .. sub(text, a, a + len - 1), tonumber(qty)
      k, p = k + 2, b
    end
    return out
  end
  local function ns(s) return #s .. ':' .. s end
  function pack_items(items)
    local out = {}
    for i = 1, #items, 2 do
      out[#out + 1] = ns(sub(items[i], 2)) .. format('%d;', items[i + 1])
    end
    return table.concat(out) .. '.'
  end
  -- with another state, and no time at which it is due
  local function with_state(state, r) return state .. sub(r, match(r, '^%a%d*()'), -1) end
  local function holds_units(r) return r and (sub(r, 1, 1) == 'R' or sub(r, 1, 1) == 'D') end

  -- Levels of SKUs that only records name.
  local want, asked = {}, {}
  local function want_levels(field)
    if holds_units(records[field]) then
      local _, _, body, granted = open_record(records[field])
      local items = items_of(body, granted)
      for i = 1, #items, 2 do
        if levels[items[i]] == nil and not asked[items[i]] then
          asked[items[i]] = true
          want[#want + 1] = items[i]
        end
      end
    end
  end
  for _, field in ipairs(expired) do want_levels(field) end
  for i = fields_at + 1, bodies_at do want_levels(ARGV[i]) end
  for a = 1, #want, 1000 do
    local b = math.min(#want, a + 999)
    local r = call('HMGET', KEYS[1], unpack(want, a, b))
    for i = a, b do keep_level(want[i], r[i - a + 1]) end
  end

  -- Units by user: ':' user for the activity, netstring(sku) user for a SKU.
  local per_user, per_sku = tonumber(ARGV[10]), tonumber(ARGV[11])
  if limited then
    local names = {}
    local function want_use(field)
      if used[field] == nil then
        used[field] = 0
        names[#names + 1] = field
      end
    end
    local function want_uses(user, items)
      if per_user > 0 then want_use(':' .. user) end
      if per_sku > 0 then
        for i = 1, #items, 2 do want_use(ns(sub(items[i], 2)) .. user) end
      end
    end
    local function want_uses_of(field)
      if holds_units(records[field]) then
        local _, _, body, granted = open_record(records[field])
        local user = user_of(body)
        want_uses(user, items_of(body, granted))
      end
    end
    for _, field in ipairs(expired) do want_uses_of(field) end
    for i = 1, n do
      want_uses(ARGV[users_at + i], shapes[ARGV[shapes_at + i]].items)
      want_uses_of(ARGV[fields_at + i])
    end
    for a = 1, #names, 1000 do
      local b = math.min(#names, a + 999)
      local r = call('HMGET', KEYS[5], unpack(names, a, b))
      for i = a, b do used[names[i]] = tonumber(r[i - a + 1] or 0) end
    end
  end

  function use(user, items, sign)
    local total = 0
    for i = 1, #items, 2 do
      local q = sign * items[i + 1]
      total = total + q
      if per_sku > 0 then
        local f = ns(sub(items[i], 2)) .. user
        used[f], used_dirty[f] = math.max(0, used[f] + q), true
      end
    end
    if per_user > 0 then
      local f = ':' .. user
      used[f], used_dirty[f] = math.max(0, used[f] + total), true
    end
  end

  function limit_refusal(user, items, total)
    if per_sku > 0 then
      for i = 1, #items, 2 do
        local have = used[ns(sub(items[i], 2)) .. user]
        if have + items[i + 1] > per_sku then return { 9, sub(items[i], 2), have, per_sku } end
      end
    end
    if per_user > 0 and used[':' .. user] + total > per_user then
      return { 9, '', used[':' .. user], per_user }
    end
  end

  -- The items that can be had one by one, their total, and the first refusal. Where
  -- stock of an item in must is short, other buckets are to be asked for it first.
  function what_is_there(user, items, must)
    local out, total, first = {}, 0, nil
    for i = 1, #items, 2 do
      local no = refusal(user, { items[i], items[i + 1] }, total + items[i + 1])
      if not no then
        out[#out + 1], out[#out + 2] = items[i], items[i + 1]
        total = total + items[i + 1]
      elseif no[1] == 7 or must[items[i]] and no[1] == 8 then
        return nil, 0, no
      else
        first = first or no
      end
    end
    return out, total, first
  end

  -- Ends an order that has units, which come back.
  local function give_back(field, verb, extra)
    local r = records[field]
    local state, _, body, granted = open_record(r)
    local items = items_of(body, granted)
    note(verb, field, granted and sub(body, 1, select(2, user_of(body)) - 1) .. granted or body, extra)
    for i = 1, #items, 2 do
      local q = items[i + 1]
      if state == 'R' then move(items[i], q, -q, 0) else move(items[i], q, 0, -q) end
    end
    if limited then
      local user = user_of(body)
      use(user, items, -1)
    end
    put(field, with_state(verb, r))
  end

  -- The record of an id, after its hold ended if it was due.
  function current(field)
    local r = records[field]
    if r and sub(r, 1, 1) == 'R' then
      local _, d = open_record(r)
      if d <= now then
        give_back(field, 'E', '')
        return records[field]
      end
    end
    return r
  end
  for _, field in ipairs(expired) do current(field) end

  -- The verdict on an order or restock whose id has the record r, or nil if it is
  -- to be settled: a refusal of another call does not count.
  function replayed(i, r, body)
    local state, _, was = open_record(r)
    if state == 'F' then
      if string.find(' ' .. was, ' ' .. refused_token(i) .. ' ', 1, true) then return { 14 } end
      return nil
    end
    if sub(was, 1, 1) == '-' then -- cancelled before it arrived
      local len = #was - 1
      if sub(body, 1 + 1, len) ~= sub(was, 2, len) then return { 2 } end
      return { 1, r }
    end
    if was ~= body then return { 2 } end
    return { 1, r }
  end

  -- The body of confirm, cancel and status is '-' netstring(user) '.'.
  local function find(field, body)
    local r = current(field)
    if not r or sub(r, 1, 1) == 'F' then return nil, { 10 } end
    local _, _, was = open_record(r)
    if sub(was, 2, #body - 1) ~= sub(body, 2, -2) then return nil, { 2 } end
    return r
  end

  function confirm(field, body)
    local r, no = find(field, body)
    if no then return no end
    local state, _, was, granted = open_record(r)
    if state ~= 'R' and state ~= 'D' then return { 1, r } end
    note('C', field, granted and sub(was, 1, select(2, user_of(was)) - 1) .. granted or was)
    if state == 'R' then
      local items = items_of(was, granted)
      for i = 1, #items, 2 do move(items[i], 0, -items[i + 1], items[i + 1]) end
    end
    put(field, with_state('C', r))
    return { 0, records[field] }
  end

  function cancel(field, body, reason)
    local r, no = find(field, body)
    if no and no[1] == 10 then
      put(field, 'X;' .. body)
      return { 0, records[field] }
    end
    if no then return no end
    if not holds_units(r) then return { 1, r } end
    give_back(field, 'X', ns(reason))
    return { 0, records[field] }
  end

  function status(field, body)
    local r, no = find(field, body)
    return no or { 1, r }
  end

  function restock(i, field, body, items)
    local verdict = records[field] and replayed(i, records[field], body)
    if verdict then return verdict end
    for k = 1, #items, 2 do
      local level = levels[items[k]]
      if not level then return refuse(i, field, { 7, sub(items[k], 2) }) end
      if level.left + level.held + level.sold + items[k + 1] > MAX then
        return refuse(i, field, { 13, sub(items[k], 2) })
      end
    end
    note('A', field, body)
    for k = 1, #items, 2 do move(items[k], items[k + 1], 0, 0) end
    put(field, 'A;' .. body)
    return 0
  end

  function load_stock(field, items)
    local buckets = call('HGET', KEYS[1], '@buckets')
    if buckets then return { 15, buckets } end
    local new = {}
    for k = 1, #items, 2 do
      local level, q = levels[items[k]], items[k + 1]
      if level and level.initial ~= q then return { 2, sub(items[k], 2), level.initial } end
      if not level then new[#new + 1], new[#new + 2] = items[k], q end
    end
    if #new == 0 then return { 1, '' } end
    for k = 1, #new, 2 do
      levels[new[k]] = { left = new[k + 1], held = 0, sold = 0, initial = new[k + 1], version = us, dirty = true }
    end
    note('L', field, 'L0:' .. pack_items(new))
    return 0
  end
end
