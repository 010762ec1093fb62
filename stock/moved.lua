-- Prelude of settle.lua: stock that moves from one bucket of an activity to another.
--
-- Between two buckets there is one transfer at a time, and they are numbered. In the
-- levels hash of the giver the field '>' peer is "seq items after" of the last one that
-- it gave, after being the journal entry before the one that has it; in that of the
-- taker '<' peer is "seq after" of the last one that it took. Units are on their way
-- while the first number is the larger. Nothing of this expires: a repeat is told by its
-- number, however late it comes.
--
-- A number that is left out, or that means two transfers, is the trace of a failover:
-- one of the two buckets lost what it had given or taken. The sale goes on; the field
-- '@gap' keeps the trace for RunJournal and Rebuild.
--
-- The shape of a verb here is verb own '>' peer '#' seq '@' after ';' and items: own
-- the bucket that gives, peer the one that takes. 'G' gives: seq and after are those of
-- the last transfer that the taker has, which acknowledges it, and quantities are what
-- it needs. 'T' takes seq. 'Z' looks: own is this bucket, peer the number of buckets.

local moved, links, links_dirty

if moving then
  moved, links, links_dirty = {}, {}, {}

  local function link(field)
    if not links[field] then links[field] = call('HGET', KEYS[1], field) or '' end
    return links[field]
  end
  local function set_link(field, value)
    links[field], links_dirty[field] = value, true
  end
  -- as in the journal: the field and body of an op without user
  local function transfer(verb, op, seq, text, after)
    local id = op.own .. '>' .. op.peer .. '#' .. format('%d', seq)
    note(verb, #id .. ':' .. id, verb .. '0:' .. text, after and #after .. ':' .. after)
  end
  local function number(link_text) return tonumber(match(link_text, '^%d+') or 0) end
  -- after of the link text of either side
  local function after(link_text) return match(link_text, '[%d-]*$') end
  local function gap(op) set_link('@gap', op.own .. '>' .. op.peer .. '#' .. op.seq) end

  -- Gives at least what is needed, and half of what there is, so that a SKU which is
  -- wanted everywhere does not move for every order.
  function moved.G(op)
    local out, has = '>' .. op.peer, tonumber(op.seq)
    local was = link(out)
    -- The taker has not all: it is told what it lacks, by a repeat of this call too.
    if number(was) > has then return { 0, was } end
    if number(was) < has or has > 0 and after(was) ~= op.after then gap(op) end
    local given = {}
    -- No order will be served with it while all are refused; and who waits for the end of
    -- a halted sale sees less and less on its way.
    for k = 1, halted and 0 or #op.items, 2 do
      local level = levels[op.items[k]]
      if level and level.left > 0 then
        local q = math.min(level.left, math.max(op.items[k + 1], math.floor(level.left / 2)))
        given[#given + 1], given[#given + 2] = op.items[k], q
      end
    end
    if #given == 0 then return { 0, '' } end
    local text = pack_items(given)
    transfer('G', op, has + 1, text)
    for k = 1, #given, 2 do move(given[k], -given[k + 1], 0, 0) end
    set_link(out, format('%d ', has + 1) .. text .. last)
    return { 0, links[out] }
  end

  function moved.T(op)
    local from, seq = '<' .. op.own, tonumber(op.seq)
    local took = number(link(from))
    if seq == took and after(link(from)) ~= op.after or seq > took + 1 then gap(op) end
    if seq <= took then return 1 end
    for k = 1, #op.items, 2 do
      -- Load is not through here: the units wait for it on their way.
      if not levels[op.items[k]] then return { 7, sub(op.items[k], 2) } end
    end
    transfer('T', op, seq, pack_items(op.items), op.after)
    for k = 1, #op.items, 2 do move(op.items[k], op.items[k + 1], 0, 0) end
    set_link(from, format('%d ', seq) .. op.after)
    return 0
  end

  -- "left version;" of each SKU, version 0 where it was not loaded, then for each
  -- bucket netstring('>' peer) netstring('<' peer), and netstring('@gap')
  function moved.Z(op)
    local out = {}
    for k = 1, #op.items, 2 do
      local level = levels[op.items[k]]
      out[#out + 1] = level and format('%d %d;', level.left, level.version) or '0 0;'
    end
    for peer = 0, tonumber(op.peer) - 1 do
      local gave, took = link('>' .. peer), link('<' .. peer)
      out[#out + 1] = #gave .. ':' .. gave .. #took .. ':' .. took
    end
    local lost = link('@gap')
    out[#out + 1] = #lost .. ':' .. lost
    return { 0, table.concat(out) }
  end
end
