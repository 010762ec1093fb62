-- Prelude: the members that are on in a bitmap, by number

local function isOn() return redis.call('GETBIT', KEYS[#KEYS], ARGV[4]) end

local function put(on) redis.call('SETBIT', KEYS[#KEYS], ARGV[4], on) end
