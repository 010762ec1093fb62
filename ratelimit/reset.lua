-- Forgets what was taken of one key.
--
-- KEYS     1 state of the key
-- Derived  none
-- ARGV     none
-- Returns  1 if there was something
-- Retry    state: afterwards there is none; a second run may forget what was
--          taken in between

return redis.call('UNLINK', KEYS[1])
