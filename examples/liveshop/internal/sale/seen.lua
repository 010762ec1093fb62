-- Notes what somebody else has left, and which products sold out or came back since
-- they were looked at before.
--
-- KEYS     1 hash of SKU → "left version", 2 the time of the newest look
-- Derived  none
-- ARGV     1 time of this look in us, which is the version of what it finds changed;
--          2 ms to keep the keys; then SKU, left, …
-- Returns  SKU, left, … of those that crossed 0 in this look
-- Retry    state: a crossing bears the version of its look, and is told again
--
-- A look that was overtaken by a newer one changes nothing.

local us = tonumber(ARGV[1])
local newest = redis.call('GET', KEYS[2])
if newest and tonumber(newest) > us then return {} end

local skus = {}
for i = 3, #ARGV, 2 do skus[#skus + 1] = ARGV[i] end
local known = redis.call('HMGET', KEYS[1], unpack(skus))
local set, crossed = {}, {}
for i, sku in ipairs(skus) do
  local left, version = tonumber(ARGV[2 * i + 2]), us
  if known[i] then
    local before, at = string.match(known[i], '^(%d+) (%d+)$')
    if (before == '0') == (left == 0) then version = tonumber(at) end
  end
  set[#set + 1] = sku
  set[#set + 1] = string.format('%d %d', left, version)
  if version == us and (known[i] or left == 0) then
    crossed[#crossed + 1] = sku
    crossed[#crossed + 1] = string.format('%d', left)
  end
end
redis.call('HSET', KEYS[1], unpack(set))
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return crossed
