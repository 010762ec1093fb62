-- Starts a PK for the first who challenges a host.
-- KEYS: 1 bar (hash)
-- ARGV: 1 host, 2 challenger, 3 ms that it lasts, 4 the whole bar, 5 ms the bar is kept
-- Returns: { whether this is the challenger, and the bar: round, a, b, left, right,
--   state, winner, ends, version }
-- Derived: none
-- Retry: state: who is the challenger is told so again
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local bar = call('HMGET', KEYS[1], 'round', 'a', 'b', 'left', 'right', 'state', 'winner', 'ends', 'version')
local ok = 0
if not bar[1] or now >= tonumber(bar[8]) then
  local half = string.format('%d', ARGV[4] / 2)
  bar = {
    string.format('%d', (bar[1] or 0) + 1), ARGV[1], ARGV[2], half, half, 'on', '0',
    string.format('%d', now + ARGV[3]), string.format('%d', (bar[9] or 0) + 1),
  }
  call('HSET', KEYS[1], 'round', bar[1], 'a', bar[2], 'b', bar[3], 'left', bar[4], 'right', bar[5],
    'state', bar[6], 'winner', bar[7], 'ends', bar[8], 'version', bar[9])
  call('PEXPIRE', KEYS[1], ARGV[5])
  ok = 1
elseif bar[3] == ARGV[2] and bar[6] == 'on' then
  ok = 1
end
return { ok, unpack(bar) }
