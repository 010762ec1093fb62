-- Prelude: the totals of an object in a hash, a field of it for each field that was
-- counted. An object has one key; its cells are named as the fields are.

local KEYS_EACH = 1

-- load returns the totals of cells, nil if KEYS[k] is no hash.
local function load(k, cells)
  local have = redis.pcall('HMGET', KEYS[k], unpack(cells))
  if have.err then return nil end
  for i = 1, #cells do have[i] = tonumber(have[i] or '0') end
  return have
end

-- store writes totals of cells.
local function store(k, cells, totals)
  local write = {}
  for i = 1, #cells do
    write[2 * i - 1] = cells[i]
    write[2 * i] = string.format('%d', totals[i])
  end
  if #write > 0 then redis.call('HSET', KEYS[k], unpack(write)) end
end

-- here reports whether what is at KEYS[k] can be worked on.
local function here(k) return true end
