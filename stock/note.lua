-- Prelude of settle.lua: decisions are noted here; nothing is written until all
-- ops of the batch have been decided.

local MAX = 4503599627370496 -- 2^52: no total grows beyond it

local journal, crossings, changed, changed_known = {}, {}, {}, {}
local used, used_dirty = {}, {} -- units by user, where there are limits

local note, put, move, refused_token, refuse, refusal
local limit_refusal -- in settled.lua

if not plenty then
  function note(verb, field, body, extra)
    journal[#journal + 1] = verb .. field .. body .. (extra or '')
  end

  function put(field, record)
    if not changed_known[field] then
      changed_known[field] = true
      changed[#changed + 1] = field
    end
    records[field] = record
  end

  function move(field, left, held, sold)
    local level = levels[field]
    local before = level.left
    level.left, level.held, level.sold, level.dirty = before + left, level.held + held, level.sold + sold, true
    if (before == 0) ~= (level.left == 0) then
      level.version = math.max(level.version + 1, us)
      local c, sku = #crossings, sub(field, 2)
      crossings[c + 1], crossings[c + 2], crossings[c + 3] = sku, level.version, level.left
      note('V', #sku .. ':' .. sku, format('%d %d.', level.version, level.left))
    end
  end

  -- What tells the attempts of this call from those of another one.
  function refused_token(i) return ARGV[2] .. '.' .. (ARGV[3] + i) end

  -- A refusal leaves no trace, unless an earlier attempt of this call is still on its
  -- way: that one must not be granted after this one was refused. The tokens of other
  -- calls under this id that were refused so stay beside it, the last ten or so: their
  -- attempts may be on their way too. Each is followed by a space.
  function refuse(i, field, verdict)
    if ARGV[1] == '1' then
      local r = records[field]
      local others = r and sub(r, 1, 1) == 'F' and sub(r, 3, 256) or ''
      put(field, 'F;' .. refused_token(i) .. ' ' .. others)
    end
    return verdict
  end

  -- Why these items cannot be had, or nil.
  function refusal(user, items, total)
    for k = 1, #items, 2 do
      local level = levels[items[k]]
      if not level then return { 7, sub(items[k], 2) } end
      if level.left < items[k + 1] then return { 8, sub(items[k], 2), level.left, level.version } end
    end
    if limited then return limit_refusal(user, items, total) end
  end
end
