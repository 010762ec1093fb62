-- Puts a block back into Redis, if it is still away under the same mark.
--
-- KEYS     1 and 2 the block's string and hash, 3 its mark, 4 the blocks that are here
-- ARGV     1 the mark of its absence, 2 its mark from now on, 3 its number, 4 the string,
--          then the cells and totals of the hash
-- Returns  1 if the block was put back by this, else 0
-- Derived  none
-- Retry    state: marks never return, so that a second or late run finds another

if redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[3], ARGV[2])
redis.call('SET', KEYS[1], ARGV[4])
redis.call('DEL', KEYS[2])
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('ZADD', KEYS[4], redis.call('TIME')[1], ARGV[3])
return 1
