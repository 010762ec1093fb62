-- Prelude: below packed.lua, blocks that may be away. A block has two keys more: its
-- mark, "h <epoch> <version>" while it is here and "c <epoch> <version>" while it is not,
-- and the shard's sorted set of the blocks that are here, by the second of their last
-- change. The version counts changes, the epoch returns.

KEYS_EACH = 4

-- here reports whether the block at KEYS[k] can be worked on.
here = function(k)
  return string.sub(redis.call('GET', KEYS[k + 2]) or '', 1, 1) == 'h'
end

local loadPacked, storePacked = load, store

-- A block that should be here and is not is no block of zeros; nor is it when half of it
-- or something else is in its place.
load = function(k, cells)
  local have = redis.call('EXISTS', KEYS[k]) == 1 and loadPacked(k, cells)
  if not have then return nil, redis.error_reply('REFUSED lost ' .. KEYS[k]) end
  return have
end

store = function(k, cells, totals, length)
  if #cells == 0 then return end
  local epoch, version = string.match(redis.call('GET', KEYS[k + 2]), '^h (%d+) (%d+)$')
  storePacked(k, cells, totals, length)
  redis.call('SET', KEYS[k + 2], 'h ' .. epoch .. ' ' .. string.format('%d', version + 1))
  redis.call('ZADD', KEYS[k + 3], redis.call('TIME')[1], string.match(KEYS[k], '(-?%d+)$'))
end
