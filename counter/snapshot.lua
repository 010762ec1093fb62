-- Reads a block with its mark.
--
-- KEYS     1 and 2 the block's string and hash, 3 its mark
-- ARGV     none
-- Returns  the mark, the string, then the cells and totals of the hash; empty strings
--          for what is not there
-- Derived  none
-- Retry    read: it changes nothing

local out = redis.call('HGETALL', KEYS[2])
table.insert(out, 1, redis.call('GET', KEYS[1]) or '')
table.insert(out, 1, redis.call('GET', KEYS[3]) or '')
return out
