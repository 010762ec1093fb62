-- Puts the packets of a rain into its list, once, and not after the start.
-- KEYS: 1 window (hash), 2 amounts (list), 3 grabbed (hash)
-- ARGV: 1 ms they are kept; then the amounts
-- Returns: how many there are
-- Derived: none
-- Retry: state: a list that is there stays
local call = redis.call
if call('EXISTS', KEYS[1]) + call('EXISTS', KEYS[2]) + call('EXISTS', KEYS[3]) == 0 then
  for i = 2, #ARGV, 1000 do -- what unpack can return is bounded
    call('RPUSH', KEYS[2], unpack(ARGV, i, math.min(i + 999, #ARGV)))
  end
  call('PEXPIRE', KEYS[2], ARGV[1])
end
return call('LLEN', KEYS[2])
