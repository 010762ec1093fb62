-- Gives a user a number in a room: the next one from 0, the same for ever.
-- KEYS: 1 members (hash)
-- ARGV: 1 uid, 2 ms the numbers are kept
-- Returns: the number
-- Derived: none
-- Retry: state: who has a number keeps it
local n = redis.call('HGET', KEYS[1], ARGV[1])
if not n then
  n = redis.call('HLEN', KEYS[1])
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', n))
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return tonumber(n)
