-- Renews leases.
--
-- KEYS     1 to 8 see read.lua
-- ARGV     1 number of deliveries n, 2 lease ms; then n ids, n tokens
-- Returns  1 per delivery that holds its job, 0 per one that lost it
-- Derived  none
-- Retry    state: a lease ends a fixed time after the last run

local n = tonumber(ARGV[1])
local states = call('HMGET', KEYS[4], unpack(ARGV, 3, 2 + n))
local lease = format('%d', now + tonumber(ARGV[2]))
local reply, leases = {}, {}
for i = 1, n do
  local state, token = states[i], ARGV[2 + n + i]
  local kind = state and sub(state, 1, 1)
  reply[i] = 0
  if (kind == 'R' or kind == 'U') and sub(state, 10, 10 + #token) == token .. ' ' then
    reply[i] = 1
    leases[#leases + 1], leases[#leases + 2] = lease, ARGV[2 + i]
  end
end
-- Removes nothing: but after a first write that needs no memory Redis lets the
-- others pass, and a lease that cannot be renewed is a job that runs twice.
call('ZREM', KEYS[2], '')
write('ZADD', KEYS[2], leases)
return reply
