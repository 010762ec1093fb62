-- Takes a permit of a semaphore, or a read-write lock for reading or writing.
--
-- KEYS     1 state, 2 members
-- ARGV     1 token, 2 ttl ms, 3 size (0: a read-write lock), 4 writes (0, 1), 5 waits
--          (1: the caller will wait for a message), 6 channel
-- Returns  {1, fence, 0, -1} or {0, ms until it may be worth asking again}; REFUSED
--          SIZE <size> if the semaphore has another size and is in use
-- Derived  none
-- Retry    token: the second run finds the token among the members and changes
--          nothing but the fence, which grows, as nobody saw the first; a token that
--          was given back gets nothing any more

local ttl, wanted = tonumber(ARGV[2]), tonumber(ARGV[3])
local writes, waits = ARGV[4] == '1', ARGV[5] == '1'

local live = call('ZCOUNT', KEYS[2], '(' .. us(now), '+inf')
local taken = mine and mine > now
local free
if wanted > 0 then
  if size ~= wanted and live > 0 then return redis.error_reply('REFUSED SIZE ' .. us(size)) end
  free = live < wanted
elseif writes then
  free = live == 0
else
  local w = call('ZSCORE', KEYS[2], writer)
  local writing = w and tonumber(w) > now
  free = intent <= now and not writing
end
-- Not writing, above, is right after the write ended in any way: by release,
-- expiry, or both forgotten.

local spent = mine and mine <= 0
if not taken and (spent or not free) then
  local at = now + ttl * 1000
  local first = call('ZRANGEBYSCORE', KEYS[2], '(' .. us(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if first[2] then at = tonumber(first[2]) end
  if intent > now and not writes and intent < at then at = intent end
  if waits and not spent then
    if writes then intent = now + 1000000 end
    local asks = waiting == '0'
    waiting = '1'
    if asks or writes then call('SET', KEYS[1], pack(), 'PX', KEEP + ttl) end
  end
  return { 0, math.max(0, math.ceil((at - now) / 1000)) }
end

local old = call('ZRANGEBYSCORE', KEYS[2], us(10000000 - now), us(now), 'LIMIT', 0, 100)
last = math.max(last + 1, now)
if not taken then
  size = wanted
  if writes then writer, intent = me, 0 end
end
call('SET', KEYS[1], pack(), 'PX', KEEP + ttl)
if not taken then
  if #old > 0 then call('ZREM', KEYS[2], unpack(old)) end
  call('ZADD', KEYS[2], us(now + ttl * 1000), me)
  call('PEXPIRE', KEYS[2], KEEP + ttl)
end
return { 1, last, 0, -1 }
