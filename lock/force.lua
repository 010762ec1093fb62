-- Ends a lease against its holder's will.
--
-- KEYS     1 record
-- ARGV     1 token of the holder, 2 channel
-- Returns  1 if that token held the lock, else 0
-- Derived  none
-- Retry    state: a token that was taken away stays so

if not (live and token == ARGV[1]) then return 0 end
-- Its fences are not given back: the holder may go on using them, and the next
-- one's must be greater.
if free(false) then call('PUBLISH', ARGV[2], 'free') end
return 1
