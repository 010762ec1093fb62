-- Prelude: the totals of 256 objects in a string, a block: 4 bytes each, two's
-- complement, the most significant first, the 256 of a field together. A total that
-- needs more is in the hash beside it, under its cell's number, and its cell holds -2^31.
-- A block has two keys, the string's and the hash's; cell c is 256 * field + object.

local KEYS_EACH = 2
local MOVED, WRAP = 2147483648, 4294967296 -- 2^31, 2^32

-- load returns the totals of cells, nil if KEYS[k] or the next is of another type; then
-- the answer to that, too, if it has one.
local function load(k, cells)
  local block = redis.pcall('GET', KEYS[k])
  if type(block) == 'table' then return nil end
  local have, moved, where = {}, {}, {}
  for i = 1, #cells do
    local at = 4 * tonumber(cells[i])
    local a, b, c, d = string.byte(block or '', at + 1, at + 4)
    local total = 0
    if d then total = ((a * 256 + b) * 256 + c) * 256 + d end
    if total == MOVED then
      moved[#moved + 1] = cells[i]
      where[#where + 1] = i
    elseif total > MOVED then
      total = total - WRAP
    end
    have[i] = total
  end
  if #moved > 0 then
    local beside = redis.pcall('HMGET', KEYS[k + 1], unpack(moved))
    if beside.err then return nil end
    for i = 1, #moved do
      if not beside[i] then return nil end
      have[where[i]] = tonumber(beside[i])
    end
  end
  return have
end

-- store writes totals of cells, into a string that is as long as it gets from the
-- beginning: growing, it would take twice its length. A total that has come back
-- leaves its entry in the hash, which nobody reads.
local function store(k, cells, totals, length)
  if #cells == 0 then return end
  length = tonumber(length)
  if redis.call('STRLEN', KEYS[k]) < length then redis.call('SETRANGE', KEYS[k], length - 1, string.char(0)) end
  for i = 1, #cells do
    local total = totals[i]
    if total <= -MOVED or total >= MOVED then
      redis.call('HSET', KEYS[k + 1], cells[i], string.format('%d', total))
      total = MOVED
    elseif total < 0 then
      total = total + WRAP
    end
    local d = total % 256
    local c = (total - d) / 256 % 256
    local b = math.floor(total / 65536) % 256
    redis.call('SETRANGE', KEYS[k], 4 * tonumber(cells[i]), string.char(math.floor(total / 16777216), b, c, d))
  end
end

-- here reports whether what is at KEYS[k] can be worked on.
local function here(k) return true end
