-- Prelude: the members that are on in a set, by name

local function isOn() return redis.call('SISMEMBER', KEYS[#KEYS], ARGV[4]) end

local function put(on)
  if on == 1 then
    redis.call('SADD', KEYS[#KEYS], ARGV[4])
  else
    redis.call('SREM', KEYS[#KEYS], ARGV[4])
  end
end
