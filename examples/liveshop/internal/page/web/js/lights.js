// A light for each invariant: what must always be true of stock, money and messages,
// as the server's own checker sees it.
import { get } from "./api.js";
import { el } from "./dom.js";
import { has, say, t } from "./i18n.js";

const every = 3_000; // ms between looks

export class Lights {
  #box;
  #verdict = el("strong", { class: "verdict", role: "status" });
  #list = el("ul", { class: "light-list" });
  #detail = el("p", { class: "light-detail", hidden: true, role: "status" });
  #known = new Map(); // name → light
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
    try {
      this.#show(await get("/admin/invariants"));
    } catch {
      say(this.#verdict, "lights.away");
      this.#box.dataset.verdict = "away";
    }
  }

  #show(invariants) {
    for (const { name, ok, detail } of invariants) {
      const light = this.#known.get(name) ?? this.#add(name);
      light.detail = detail;
      light.text.textContent = label(name);
      light.button.dataset.ok = String(ok);
      say(light.state, ok ? "lights.ok" : "lights.bad");
      if (this.#open === name) this.#detail.textContent = this.#text(name);
    }
    const broken = invariants.filter(({ ok }) => !ok).length;
    this.#box.dataset.verdict = broken ? "bad" : "ok";
    say(this.#verdict, broken ? "lights.broken" : "lights.hold", { n: broken || invariants.length });
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
