-- Reads counters of one shard, and how far one process's flushes have come there.
--
-- KEYS     1 number of the last flush of this process here, 2 on hashes
-- ARGV     names of fields
-- Returns  that number, then for each hash its fields, nil where there is none
-- Derived  none
-- Retry    state: it writes nothing

local out = { tonumber(redis.call('GET', KEYS[1]) or '0') }
for k = 2, #KEYS do
  out[k] = redis.call('HMGET', KEYS[k], unpack(ARGV))
end
return out
