-- Prelude of scripts that write to a resource which a lock protects.

local function admit(key, fence)
  local highest = redis.call('GET', key)
  fence = tonumber(fence)
  if highest and tonumber(highest) > fence then return false end
  redis.call('SET', key, string.format('%.0f', fence))
  return true
end
