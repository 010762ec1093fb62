-- Fixes how many buckets an activity has and what it is loaded with in all, before
-- any bucket is loaded with its share.
--
-- KEYS     1 levels hash of the activity itself, not of a bucket
-- ARGV     1 number of buckets, 2 only look (1), then SKU and units in all, repeated
-- Returns  0, or what was fixed before: {1, number of buckets}, {2, SKU, units}
-- Derived  none
-- Retry    state: what is fixed stays so

local buckets = redis.call('HGET', KEYS[1], '@buckets')
if not buckets and redis.call('HEXISTS', KEYS[1], '@') == 1 then buckets = '1' end
if buckets and buckets ~= ARGV[1] then return { 1, buckets } end
local set = { '@buckets', ARGV[1] }
for i = 3, #ARGV, 2 do
  local was = redis.call('HGET', KEYS[1], '=' .. ARGV[i])
  if was and was ~= ARGV[i + 1] then return { 2, ARGV[i], was } end
  set[#set + 1], set[#set + 2] = '=' .. ARGV[i], ARGV[i + 1]
end
if ARGV[2] == '0' then redis.call('HSET', KEYS[1], unpack(set)) end
return 0
