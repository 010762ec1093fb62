-- Tells who holds a lock.
--
-- KEYS     1 record
-- ARGV     none
-- Returns  {ms left, first fence of the holder, others wait (0, 1), token}, or
--          {0, last fence, 0, -}
-- Derived  none
-- Retry    read: it changes nothing

if live then return { left(), first, tonumber(waiting), token } end
return { 0, last, 0, '-' }
