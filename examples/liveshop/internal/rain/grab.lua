-- Gives a user a packet of a rain: the next one, once a user, inside the window.
-- KEYS: 1 window (hash), 2 amounts (list), 3 grabbed (hash)
-- ARGV: 1 uid, 2 ms that grabs are kept
-- Returns: { what happened: packet, again, early, late, empty or none; fen; room }
-- Derived: none
-- Retry: state: who has a packet is given the same one again
local call = redis.call
local w = call('HMGET', KEYS[1], 'starts', 'ends', 'room')
local room = tonumber(w[3] or '0')
local have = call('HGET', KEYS[3], ARGV[1])
if have then
  return { 'again', tonumber(have), room }
end
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if not w[1] then
  return { 'none', 0, 0 }
elseif now >= tonumber(w[2]) then -- also before it began: the room may have closed
  return { 'late', 0, room }
elseif now < tonumber(w[1]) then
  return { 'early', 0, room }
end
local fen = call('LPOP', KEYS[2])
if not fen then
  return { 'empty', 0, room }
end
call('HSET', KEYS[3], ARGV[1], fen)
call('PEXPIRE', KEYS[3], ARGV[2])
return { 'packet', tonumber(fen), room }
