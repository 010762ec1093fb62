-- Moves the bar of a PK by a gift, once.
-- KEYS: 1 bar (hash), 2 gifts that came (set), 3 wins (list)
-- ARGV: 1 who got the gift, 2 fen, 3 the gift's key, 4 the whole bar, 5 ms that a won bar
--   stays before the next challenge, 6 ms the bar is kept
-- Returns: { whether it moved now, and the bar as challenge.lua returns it }, or
--   { 0 } if there never was one
-- Derived: none
-- Retry: token: a gift that came before moves nothing
local call, format = redis.call, string.format
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local bar = call('HMGET', KEYS[1], 'round', 'a', 'b', 'left', 'right', 'state', 'winner', 'ends', 'version')
local came = call('SISMEMBER', KEYS[2], ARGV[3]) == 1
if not came then
  -- Also a gift that moves nothing is remembered, be it for want of a PK: sent again it
  -- must not move the next one.
  call('SADD', KEYS[2], ARGV[3])
  call('PEXPIRE', KEYS[2], ARGV[6])
end
if not bar[1] then
  return { 0 }
end
local whole, fen = tonumber(ARGV[4]), tonumber(ARGV[2])
local moves = bar[6] == 'on' and now < tonumber(bar[8]) and (bar[2] == ARGV[1] or bar[3] == ARGV[1])
if came or not moves then
  return { 0, unpack(bar) }
end
local left = tonumber(bar[4])
if bar[2] == ARGV[1] then
  left = math.min(whole, left + fen)
else
  left = math.max(0, left - fen)
end
bar[4], bar[5] = format('%d', left), format('%d', whole - left)
bar[9] = format('%d', bar[9] + 1)
if left == whole or left == 0 then
  bar[6], bar[7], bar[8] = 'won', ARGV[1], format('%d', now + ARGV[5])
  call('RPUSH', KEYS[3], bar[1] .. ' ' .. bar[7])
  call('PEXPIRE', KEYS[3], ARGV[6])
end
call('HSET', KEYS[1], 'left', bar[4], 'right', bar[5], 'state', bar[6], 'winner', bar[7], 'ends', bar[8], 'version', bar[9])
call('PEXPIRE', KEYS[1], ARGV[6])
return { 1, unpack(bar) }
