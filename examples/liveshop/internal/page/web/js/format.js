// Figures as people read them.

// yuan shows integer fen as yuan; whole yuan without decimals.
export function yuan(fen) {
  const whole = fen % 100 === 0;
  return "¥" + (fen / 100).toLocaleString("en", { minimumFractionDigits: whole ? 0 : 2, maximumFractionDigits: 2 });
}

// count shows 12,345 as 12.3k: cards and badges are narrow.
export function count(n) {
  if (n < 10_000) return Number(n ?? 0).toLocaleString("en");
  if (n < 1_000_000) return trim(n / 1_000) + "k";
  return trim(n / 1_000_000) + "M";
}

const trim = (n) => (n >= 100 ? n.toFixed(0) : n.toFixed(1).replace(/\.0$/, ""));

// left shows milliseconds as m:ss, or h:mm:ss from an hour on. It rounds up: a
// countdown that shows 0:00 is over.
export function left(ms) {
  const s = Math.max(0, Math.ceil(ms / 1000));
  const two = (n) => String(n).padStart(2, "0");
  const h = Math.floor(s / 3600);
  return h > 0 ? `${h}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}` : `${Math.floor(s / 60)}:${two(s % 60)}`;
}

// hue turns anything with a name into a colour of its own, 0 to 359.
export function hue(seed) {
  let h = 2166136261;
  for (const c of String(seed)) h = Math.imul(h ^ c.codePointAt(0), 16777619);
  h ^= h >>> 15;
  return Math.abs(Math.imul(h, 2246822519) >>> 8) % 360;
}

// initial is what an avatar shows of a name.
export const initial = (name) => [...String(name ?? "?").trim()][0]?.toUpperCase() ?? "?";
