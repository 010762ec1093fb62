-- Takes a block out of Redis, unless it has changed since it was read.
--
-- KEYS     1 and 2 the block's string and hash, 3 its mark, 4 the blocks that are here
-- ARGV     1 the mark it had, 2 the mark of its absence, 3 its number
-- Returns  1 if the block is away under that mark, else 0
-- Derived  none
-- Retry    state: marks never return, so that a second or late run finds another

local mark = redis.call('GET', KEYS[3])
if mark == ARGV[2] then return 1 end
if mark ~= ARGV[1] then return 0 end
-- DEL first: Redis allows it, and what follows it, when memory is short.
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[4], ARGV[3])
redis.call('SET', KEYS[3], ARGV[2])
return 1
