// The bar between two hosts: 50:50 at first, who reaches 100 has won.
import { now, tick } from "./clock.js";
import { el } from "./dom.js";
import { left as time } from "./format.js";
import { say } from "./i18n.js";

export class PK {
  #left = el("span", { class: "duel-side duel-left" });
  #right = el("span", { class: "duel-side duel-right" });
  #names = [el("span", { class: "duel-name" }), el("span", { class: "duel-name" })];
  #clock = el("span", { class: "duel-clock figure" });
  #ends = 0;
  #state = "";
  #stop;

  node = el("div", { class: "duel", hidden: true, role: "img" },
    el("div", { class: "duel-bar" }, this.#left, this.#right),
    el("div", { class: "duel-foot" }, this.#names[0], this.#clock, this.#names[1]));

  constructor() {
    this.#stop = tick(() => this.#time());
  }

  close() {
    this.#stop();
  }

  // show takes {a, b, left, right, state, winner, ends}; name(uid) is what a host is called.
  show(pk, name) {
    this.node.hidden = !pk || !pk.b;
    if (this.node.hidden) return;
    const a = name(pk.a), b = name(pk.b);
    this.node.style.setProperty("--share", String(pk.left / 100));
    this.#left.textContent = String(pk.left);
    this.#right.textContent = String(pk.right);
    this.#names[0].textContent = a;
    this.#names[1].textContent = b;
    this.#ends = pk.ends;
    this.#state = pk.winner ? "won" : pk.state;
    this.node.classList.toggle("won", Boolean(pk.winner));
    this.node.classList.toggle("won-left", Boolean(pk.winner) && String(pk.winner) === String(pk.a));
    if (pk.winner) say(this.#clock, "pk.won", { name: name(pk.winner) });
    say(this.node, "pk.label", { a, b, left: pk.left, right: pk.right }, "aria-label");
    this.#time();
  }

  #time() {
    if (this.#state === "won" || this.node.hidden) return;
    this.#clock.textContent = this.#ends > now() ? "PK " + time(this.#ends - now()) : "PK";
  }
}
