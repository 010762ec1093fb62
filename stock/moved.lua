-- Prelude of settle.lua: stock that moves from one bucket of an activity to another.
--
-- Between two buckets there is one transfer at a time, and they are numbered. In the
-- levels hash of the giver the field '>' peer is "seq items" of the last one that it
-- gave, in that of the taker '<' peer is the seq of the last one that it took. Units
-- are on their way while the first number is the larger. Nothing of this expires:
-- a repeat is told by its number, however late it comes.
--
-- The shape of a verb here is verb own '>' peer '#' seq ';' and items: own the bucket
-- that gives, peer the one that takes. 'G' gives: seq is the last transfer that the
-- taker has, which acknowledges it, and quantities are what it needs. 'T' takes seq.
-- 'Z' looks: own is this bucket, peer the number of buckets.

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
  local function transfer(verb, op, seq, text)
    local id = op.own .. '>' .. op.peer .. '#' .. format('%d', seq)
    note(verb, #id .. ':' .. id, verb .. '0:' .. text)
  end

  -- Gives at least what is needed, and half of what there is, so that a SKU which is
  -- wanted everywhere does not move for every order.
  function moved.G(op)
    local out, has = '>' .. op.peer, tonumber(op.seq)
    local last = link(out)
    -- The taker has not all: it is told what it lacks, by a repeat of this call too.
    -- (If it has more than was given, this bucket lost something in a failover.)
    if tonumber(match(last, '^%d+') or 0) > has then return { 0, last } end
    local given = {}
    for k = 1, #op.items, 2 do
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
    set_link(out, format('%d ', has + 1) .. text)
    return { 0, links[out] }
  end

  function moved.T(op)
    local from, seq = '<' .. op.own, tonumber(op.seq)
    if seq <= tonumber(match(link(from), '^%d+') or 0) then return 1 end
    for k = 1, #op.items, 2 do
      -- Load is not through here: the units wait for it on their way.
      if not levels[op.items[k]] then return { 7, sub(op.items[k], 2) } end
    end
    transfer('T', op, seq, pack_items(op.items))
    for k = 1, #op.items, 2 do move(op.items[k], op.items[k + 1], 0, 0) end
    set_link(from, format('%d', seq))
    return 0
  end

  -- "left version;" of each SKU, version 0 where it was not loaded, then for each
  -- bucket netstring('>' peer) netstring('<' peer)
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
    return { 0, table.concat(out) }
  end
end
