-- Sets bits.
--
-- KEYS     bitmaps, one for each bit: the same one more than once if need be
-- ARGV     1 ms to keep them from now on, then for each bitmap the bit
-- Returns  nothing
-- Derived  none
-- Retry    state: a bit that is set is set

for i = 1, #KEYS do
  redis.call('SETBIT', KEYS[i], ARGV[i + 1], 1)
  if KEYS[i] ~= KEYS[i + 1] then redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
end
return nil
