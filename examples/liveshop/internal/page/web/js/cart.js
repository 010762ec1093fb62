// The cart of a room. The server holds it: another tab, or another day, sees the same.
import { get, send } from "./api.js";
import { busy, el } from "./dom.js";
import { yuan } from "./format.js";
import { icon } from "./icons.js";
import { fail, toast } from "./toast.js";

export class Cart {
  #room;
  #product; // sku → product on the shelf
  #items = new Map(); // sku → qty
  #list = el("ul", { class: "lines" });
  #sum = el("strong", { class: "figure" });
  #pay;

  // product finds a product by SKU; checkout(items) makes an order and is true if
  // the cart is no longer needed.
  constructor(room, product, checkout) {
    this.#room = room;
    this.#product = product;
    this.#pay = el("button", { type: "button", class: "primary wide", t: "cart.checkout", onclick: () => busy(this.#pay, () => this.#order(checkout)) });
    this.node = el("section", { class: "panel cart", hidden: true, "aria-labelledby": "cart-title" },
      el("header", { class: "panel-head" }, el("h2", { id: "cart-title", t: "cart.title" }), this.#sum),
      this.#list, this.#pay);
  }

  async load() {
    const { items } = await get(`/rooms/${this.#room}/cart`);
    this.#items = new Map((items ?? []).map(({ sku, qty }) => [sku, qty]));
    this.#show();
  }

  async add(sku) {
    await this.#set(sku, (this.#items.get(sku) ?? 0) + 1);
    toast("cart.added", "good");
  }

  clear() {
    this.#items.clear();
    this.#show();
  }

  async #set(sku, qty) {
    try {
      await send("PUT", `/rooms/${this.#room}/cart`, { sku, qty });
      if (qty > 0) this.#items.set(sku, qty);
      else this.#items.delete(sku);
      this.#show();
    } catch (err) {
      fail(err);
    }
  }

  async #order(checkout) {
    const items = [...this.#items].map(([sku, qty]) => ({ sku, qty }));
    if (!(await checkout(items))) return;
    await Promise.all(items.map(({ sku }) => this.#set(sku, 0)));
  }

  #show() {
    let sum = 0;
    this.#list.replaceChildren(...[...this.#items].map(([sku, qty]) => {
      const { title = sku, fen = 0 } = this.#product(sku) ?? {};
      sum += fen * qty;
      const step = (by, name, key) => {
        const button = el("button", { type: "button", class: "plain round small", label: [key, { title }], onclick: () => busy(button, () => this.#set(sku, qty + by)) }, icon(name));
        return button;
      };
      return el("li", { class: "line" },
        el("span", { class: "grow" }, title), el("span", { class: "muted figure" }, yuan(fen * qty)),
        step(-1, "minus", "cart.less"), el("span", { class: "figure qty" }, String(qty)), step(1, "plus", "cart.more"));
    }));
    this.#sum.textContent = yuan(sum);
    this.node.hidden = this.#items.size === 0;
  }
}
