-- Tells what is known of a job.
--
-- KEYS     1 to 8 see read.lua
-- ARGV     1 id, 2 verdict window ms
-- Returns  record, due ms, state, lease end ms, ms of death, verdict; each is false
--          if there is none
-- Derived  KEYS[7]:<generation>, the verdict hashes, numbered by the server's clock
-- Retry    read: it changes nothing

local id = ARGV[1]
local record = call('HGET', KEYS[3], id)
if not record then return { false, false, false, false, false, verdicts(tonumber(ARGV[2]), { id })[id] or false } end
return { record, call('ZSCORE', KEYS[1], id), call('HGET', KEYS[4], id), call('ZSCORE', KEYS[2], id),
         call('ZSCORE', KEYS[5], id), false }
