-- Pauses or resumes a shard.
--
-- KEYS     1 to 8 see read.lua, 9 paused
-- ARGV     1 paused (0, 1)
-- Returns  nothing
-- Derived  none
-- Retry    state: sets what was asked for

if ARGV[1] == '1' then
  call('SET', KEYS[9], '1')
else
  call('DEL', KEYS[9])
  call('PUBLISH', KEYS[8], format('%d %d', now, us))
end
