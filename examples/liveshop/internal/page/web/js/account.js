// The tools at the top right: language, messages unread, orders, balance, who one is.
import { call, get } from "./api.js";
import { busy, el, iconButton } from "./dom.js";
import { openDialog } from "./dialog.js";
import { count, yuan } from "./format.js";
import { say, toggleLanguage } from "./i18n.js";
import { icon } from "./icons.js";
import { login } from "./login.js";
import { openOrders } from "./orders.js";
import { openWallet } from "./wallet.js";
import * as session from "./session.js";

const refresh = 15_000; // ms between looks at what is unread

export function accountTools() {
  const dot = el("span", { class: "dot", hidden: true });
  const bell = iconButton(icon("bell"), "unread.title", { class: "plain", onclick: openUnread });
  bell.append(dot);
  const orders = iconButton(icon("list"), "orders.title", { class: "plain", onclick: openOrders });
  const balance = el("span", { class: "figure" });
  const wallet = el("button", { type: "button", class: "plain wallet", onclick: openWallet }, icon("wallet"), balance);
  const name = el("span", { class: "text" });
  const leave = el("button", { type: "button", class: "plain", onclick: () => busy(leave, logout) }, icon("user"), name);
  const enter = el("button", { type: "button", class: "primary", t: "login.title", onclick: login });
  const language = el("button", { type: "button", class: "plain language", label: "language", onclick: toggleLanguage }, icon("globe"), el("span", { t: "language.other" }));
  let unread = {};

  function show() {
    const user = session.user();
    for (const node of [bell, orders, wallet, leave]) node.hidden = !user;
    enter.hidden = Boolean(user);
    if (!user) return;
    balance.textContent = yuan(user.balance ?? 0);
    say(wallet, "wallet.label", { sum: balance.textContent }, "aria-label");
    name.textContent = user.name;
    say(leave, "logout", { name: user.name }, "aria-label");
    say(leave, "logout", { name: user.name }, "title");
  }

  async function look() {
    if (!session.user() || document.hidden) return;
    try {
      unread = await get("/unread");
      lit();
      dot.hidden = !unread.total;
      dot.textContent = count(unread.total);
      say(bell, "unread.label", { n: unread.total ?? 0 }, "aria-label");
    } catch {
      // The next look tells.
    }
  }

  // The red dot of rooms that opened goes out where they are listed.
  function lit() {
    const news = unread.dots?.live, listed = !location.hash.startsWith("#/rooms/");
    document.querySelector(".brand").classList.toggle("lit", Boolean(news?.lit) && !listed);
    if (!news?.lit || !listed) return;
    news.lit = false;
    call("POST", "/unread/seen", { area: "live", at: news.newest }).catch(() => {});
  }
  addEventListener("hashchange", lit);

  async function openUnread() {
    const list = el("ul", { class: "lines" });
    const none = el("p", { class: "muted pad", t: "unread.none" });
    const dialog = openDialog("unread.title", { class: "narrow" }, none, list);
    const news = Object.entries(unread.rooms ?? {}).filter(([, n]) => n > 0);
    none.hidden = news.length > 0;
    const { rooms } = news.length > 0 ? await get("/rooms").catch(() => ({ rooms: [] })) : { rooms: [] };
    const titles = new Map(rooms.map(({ id, title }) => [String(id), title]));
    list.append(...news.map(([id, n]) => el("li", { class: "line" },
      el("a", { class: "grow", href: "#/rooms/" + id, onclick: () => dialog.close() }, titles.get(id) ?? "#" + id),
      el("span", { class: "dot" }, count(n)))));
  }

  // The token is worthless afterwards; if the server cannot be told, at least here it is gone.
  async function logout() {
    await call("POST", "/logout").catch(() => {});
    session.end();
  }

  for (const what of ["login", "logout", "balance"]) session.changes.addEventListener(what, show);
  session.changes.addEventListener("login", look);
  show();
  look();
  setInterval(look, refresh);
  return [language, bell, orders, wallet, leave, enter];
}
