// The server's clock. Countdowns run by it, on a monotonic base: a visitor's clock
// that is wrong, or is set while the page is open, changes nothing.

let offset = Date.now() - performance.now();
let bestTrip = Infinity;
let bestAt = 0;

// sync takes a server time in ms that was read half a round trip ago. The shortest
// trip of the last minute knows best.
export function sync(serverTime, trip) {
  const at = performance.now();
  if (trip > bestTrip && at - bestAt < 60_000) return;
  bestTrip = trip;
  bestAt = at;
  offset = serverTime + trip / 2 - at;
}

// now is the server's time in ms.
export const now = () => performance.now() + offset;

const tickers = new Set();

// tick calls f now and four times a second until the returned function is called.
export function tick(f) {
  tickers.add(f);
  f();
  return () => tickers.delete(f);
}

setInterval(() => tickers.forEach((f) => f()), 250);
