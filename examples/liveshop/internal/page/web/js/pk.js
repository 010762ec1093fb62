// The bar between a host and a challenger: 50:50 at first, who reaches 100 has won.
import { send } from "./api.js";
import { now, tick } from "./clock.js";
import { busy, el } from "./dom.js";
import { left as time } from "./format.js";
import { say } from "./i18n.js";
import { icon } from "./icons.js";
import { loggedIn } from "./login.js";
import { fail } from "./toast.js";
import * as session from "./session.js";

export class PK {
  #room;
  #name;
  #pk = null;
  #left = el("span", { class: "duel-side" });
  #right = el("span", { class: "duel-side" });
  #names = [el("span", { class: "duel-name" }), el("span", { class: "duel-name" })];
  #clock = el("span", { class: "duel-clock figure" });
  #bar = el("div", { role: "img" },
    el("div", { class: "duel-bar" }, this.#left, this.#right),
    el("div", { class: "duel-foot" }, this.#names[0], this.#clock, this.#names[1]));
  #join;
  #stop;

  // name(uid) is what somebody is called; joined(pk) hears of the visitor's own challenge.
  constructor(room, name, joined) {
    this.#room = room;
    this.#name = name;
    this.#join = el("button", { type: "button", class: "duel-join", onclick: () => busy(this.#join, () => this.#challenge(joined)) }, icon("bolt"), el("span", { t: "pk.join" }));
    this.node = el("div", { class: "duel" }, this.#bar, this.#join);
    this.#stop = tick(() => this.#time());
  }

  close() {
    this.#stop();
  }

  // show takes {a, b, left, right, state: "on" | "won" | "drawn", winner, ends, version}.
  show(pk) {
    if (pk && this.#pk?.version > pk.version) return; // an older one
    this.#pk = pk;
    if (pk) {
      const a = this.#name(pk.a), b = this.#name(pk.b);
      this.#bar.style.setProperty("--share", String(pk.left / 100));
      this.#left.textContent = String(pk.left);
      this.#right.textContent = String(pk.right);
      this.#names[0].textContent = a;
      this.#names[1].textContent = b;
      say(this.#bar, "pk.label", { a, b, left: pk.left, right: pk.right }, "aria-label");
    }
    this.#time();
  }

  async #challenge(joined) {
    if (!(await loggedIn())) return;
    try {
      joined(await send("POST", `/rooms/${this.#room.id}/pk/join`, {}));
    } catch (err) {
      fail(err);
    }
  }

  // A duel that is over stays to be seen until there may be another.
  #time() {
    const pk = this.#pk, rest = pk ? pk.ends - now() : 0;
    const over = !pk || (rest <= 0 && pk.state !== "on") || rest < -10_000;
    this.#bar.hidden = over;
    const mine = String(session.user()?.uid) === String(this.#room.host);
    this.#join.hidden = !(over && this.#room.kind === "pk" && this.#room.open) || mine;
    this.node.hidden = this.#bar.hidden && this.#join.hidden;
    if (over) return;
    this.#bar.classList.toggle("won", pk.state === "won");
    if (pk.state === "won") say(this.#clock, "pk.won", { name: this.#name(pk.winner) });
    else if (pk.state === "drawn" || rest <= 0) say(this.#clock, "pk.drawn");
    else say(this.#clock, "pk.left", { time: time(rest) });
  }
}
