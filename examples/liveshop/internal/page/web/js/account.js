// The tools at the top right: language, messages, orders, balance, who one is.
import { call } from "./api.js";
import { busy, el, iconButton } from "./dom.js";
import { yuan } from "./format.js";
import { say, toggleLanguage } from "./i18n.js";
import { icon } from "./icons.js";
import { login } from "./login.js";
import { messagesButton } from "./messages.js";
import { openOrders } from "./orders.js";
import { openWallet } from "./wallet.js";
import * as session from "./session.js";

export function accountTools() {
  const bell = messagesButton();
  const orders = iconButton(icon("list"), "orders.title", { class: "plain", onclick: openOrders });
  const balance = el("span", { class: "figure" });
  const wallet = el("button", { type: "button", class: "plain wallet", onclick: openWallet }, icon("wallet"), balance);
  const name = el("span", { class: "text" });
  const leave = el("button", { type: "button", class: "plain", onclick: () => busy(leave, logout) }, icon("user"), name);
  const enter = el("button", { type: "button", class: "primary", t: "login.title", onclick: login });
  const language = el("button", { type: "button", class: "plain language", label: "language", onclick: toggleLanguage }, icon("globe"), el("span", { t: "language.other" }));

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

  // The token is worthless afterwards; if the server cannot be told, at least here it is gone.
  async function logout() {
    await call("POST", "/logout").catch(() => {});
    session.end();
  }

  for (const what of ["login", "logout", "balance"]) session.changes.addEventListener(what, show);
  show();
  return [language, bell, orders, wallet, leave, enter];
}
