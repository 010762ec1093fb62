// A light for each invariant: what must always be true of stock, money and messages,
// as the server's own checker sees it.
import { get } from "./api.js";
import { el } from "./dom.js";
import { has, say, t } from "./i18n.js";

const every = 3_000; // ms between looks
const timeout = 30_000; // ms; the server gives up after 15 s, and SQL may be later

export class Lights {
  #box;
  #verdict = el("strong", { class: "verdict", role: "status" });
  #list = el("ul", { class: "light-list" });
  #detail = el("p", { class: "light-detail", hidden: true, role: "status" });
  #known = new Map(); // name → light
  #asking = false;
  #open = "";

  constructor(box) {
    this.#box = box;
    box.append(el("div", { class: "light-row" }, this.#verdict, this.#list), this.#detail);
  }

  start() {
    this.#box.hidden = false;
    document.body.classList.add("has-lights");
    this.#look();
    setInterval(() => document.hidden || this.#look(), every);
  }

  async #look() {
    if (this.#asking) return;
    this.#asking = true;
    try {
      this.#show(await get("/admin/invariants", { timeout }));
    } catch {
      say(this.#verdict, "lights.away");
      this.#box.dataset.verdict = "away";
    }
    this.#asking = false;
  }

  #show(invariants) {
    for (const { name, ok, unknown, detail } of invariants) {
      const light = this.#known.get(name) ?? this.#add(name);
      light.detail = detail;
      light.text.textContent = label(name);
      light.button.dataset.ok = unknown ? "" : String(ok);
      say(light.state, ok ? "lights.ok" : unknown ? "lights.unknown" : "lights.bad");
      if (this.#open === name) this.#detail.textContent = this.#text(name);
    }
    const unknown = invariants.filter((v) => v.unknown).length;
    const broken = invariants.filter((v) => !v.ok && !v.unknown).length;
    this.#box.dataset.verdict = broken ? "bad" : unknown ? "away" : "ok";
    say(this.#verdict, broken ? "lights.broken" : unknown ? "lights.unseen" : "lights.hold", { n: broken || unknown || invariants.length });
  }

  #add(name) {
    const state = el("span", { class: "sr" });
    const text = el("span");
    const button = el("button", { type: "button", class: "light", "aria-expanded": "false", onclick: () => this.#toggle(name) }, el("span", { class: "lamp", "aria-hidden": "true" }), text, state);
    this.#list.append(el("li", {}, button));
    const light = { button, state, text, detail: "" };
    this.#known.set(name, light);
    return light;
  }

  #toggle(name) {
    this.#open = this.#open === name ? "" : name;
    for (const [other, { button }] of this.#known) button.setAttribute("aria-expanded", String(other === this.#open));
    this.#detail.hidden = this.#open === "";
    if (this.#open) this.#detail.textContent = this.#text(name);
  }

  #text(name) {
    return `${label(name)}: ${this.#known.get(name).detail || "–"}`;
  }
}

// label is the invariant's name in the visitor's language, or as the checker calls it.
function label(name) {
  const key = "inv." + name.toLowerCase().replace(/[^a-z0-9]+/g, "-");
  return has(key) ? t(key) : name;
}
