// Who is logged in. The token lives in sessionStorage, which ends with the tab, and
// travels in a header only: never in an address, never in a cookie.

const stored = "liveshop:session";
let session = JSON.parse(sessionStorage.getItem(stored) ?? "null");

export const changes = new EventTarget(); // "login", "logout", "balance"
export const user = () => session;        // {uid, token, name, balance} or null

export function begin(login) {
  session = login;
  save("login");
}

export function end() {
  if (!session) return;
  session = null;
  save("logout");
}

export function setBalance(fen) {
  if (!session || typeof fen !== "number" || session.balance === fen) return;
  session.balance = fen;
  save("balance");
}

function save(what) {
  if (session) sessionStorage.setItem(stored, JSON.stringify(session));
  else sessionStorage.removeItem(stored);
  changes.dispatchEvent(new Event(what));
}
