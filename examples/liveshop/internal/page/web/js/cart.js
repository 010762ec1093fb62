// The cart of a room. The server holds it: another tab, or another day, sees the same.
import { get, send } from "./api.js";
import { busy, el } from "./dom.js";
import { yuan } from "./format.js";
import { icon } from "./icons.js";
import { fail, toast } from "./toast.js";

export class Cart {
  #room;
  #rows = new Map(); // sku → row
  #list = el("ul", { class: "lines" });
  #sum = el("strong", { class: "figure" });
  #pay;

  // checkout(items) makes an order; true if it got something.
  constructor(room, checkout) {
    this.#room = room;
    this.#pay = el("button", { type: "button", class: "primary wide", t: "cart.checkout", onclick: () => busy(this.#pay, () => this.#order(checkout)) });
    this.node = el("section", { class: "panel cart", hidden: true, "aria-labelledby": "cart-title" },
      el("header", { class: "panel-head" }, el("h2", { id: "cart-title", t: "cart.title" }), this.#sum),
      this.#list, this.#pay);
  }

  async load() {
    const { items } = await get(`/rooms/${this.#room}/cart`);
    this.#show(items);
  }

  async add(sku) {
    if (await this.#set(sku, (this.#rows.get(sku)?.qty ?? 0) + 1)) toast("cart.added", "good");
  }

  clear() {
    this.#show([]);
  }

  async #set(sku, qty) {
    try {
      const { items } = await send("PUT", `/rooms/${this.#room}/cart`, { sku, qty });
      this.#show(items);
      return true;
    } catch (err) {
      fail(err);
      return false;
    }
  }

  async #order(checkout) {
    const items = [...this.#rows.values()].map(({ sku, qty }) => ({ sku, qty }));
    // The server takes out of the cart what it reserved.
    if (await checkout(items)) await this.load().catch(fail);
  }

  // Rows that stay are changed, not made anew: the focus is on one of their buttons.
  #show(items) {
    const there = new Set(items.map(({ sku }) => sku));
    for (const [sku, row] of this.#rows) {
      if (there.has(sku)) continue;
      row.node.remove();
      this.#rows.delete(sku);
    }
    for (const item of items) {
      if (!this.#rows.has(item.sku)) this.#add(item);
      this.#rows.get(item.sku).show(item);
    }
    this.#sum.textContent = yuan(items.reduce((sum, { fen, qty }) => sum + fen * qty, 0));
    this.node.hidden = items.length === 0;
  }

  #add({ sku, title }) {
    const cost = el("span", { class: "muted figure" }), count = el("span", { class: "figure qty" });
    const step = (by, name, key) => {
      const button = el("button", { type: "button", class: "plain round small", label: [key, { title }], onclick: () => busy(button, () => this.#set(sku, row.qty + by)) }, icon(name));
      return button;
    };
    const row = {
      sku,
      node: el("li", { class: "line" }, el("span", { class: "grow" }, title), cost, step(-1, "minus", "cart.less"), count, step(1, "plus", "cart.more")),
      show({ qty, fen }) {
        row.qty = qty;
        cost.textContent = yuan(fen * qty);
        count.textContent = String(qty);
      },
    };
    this.#rows.set(sku, row);
    this.#list.append(row.node);
  }
}
