-- Raises numbers of a hash: what is there already and is not less stays.
--
-- KEYS     1 hash
-- ARGV     1 ms to keep the hash from now on, then pairs of field and number
-- Returns  nothing
-- Derived  none
-- Retry    state: the larger of two numbers, however often it is asked

local raised = {}
for i = 2, #ARGV, 2 do
  local have = redis.call('HGET', KEYS[1], ARGV[i])
  if not have or tonumber(have) < tonumber(ARGV[i + 1]) then
    raised[#raised + 1] = ARGV[i]
    raised[#raised + 1] = ARGV[i + 1]
  end
end
if #raised > 0 then redis.call('HSET', KEYS[1], unpack(raised)) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return nil
