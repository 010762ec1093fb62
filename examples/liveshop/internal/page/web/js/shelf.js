// The products of a room with their stock as it changes. A frame changes its rows and
// nothing is fetched again: a sell-out reaches thousands of pages at once.
import { product as picture } from "./art.js";
import { now, tick } from "./clock.js";
import { busy, el, iconButton } from "./dom.js";
import { left as time, yuan } from "./format.js";
import { say } from "./i18n.js";
import { icon } from "./icons.js";
import { Stock } from "./stock.js";

const few = 0.2; // of the stock: from here on the bar is red

export class Shelf {
  #stock = new Stock();
  #rows = new Map(); // sku → row
  #list = el("ul", { class: "wares" });
  #empty = el("p", { class: "muted pad", t: "shelf.empty" });
  #actions;
  #stop;
  #ended = false;

  node = el("section", { class: "panel shelf", "aria-labelledby": "shelf-title" },
    el("header", { class: "panel-head" }, el("h2", { id: "shelf-title", t: "shelf.title" })),
    this.#empty, this.#list);

  // actions: buy(product) and add(product), both async.
  constructor(actions) {
    this.#actions = actions;
    this.#stop = tick(() => this.#rows.forEach((row) => row.time()));
  }

  close() {
    this.#stop();
  }

  // show takes the products of a room as they were fetched.
  show(products) {
    for (const product of products) {
      const known = this.#rows.get(product.sku), row = known ?? this.#add(product);
      const paused = known?.product.paused;
      row.show(product);
      // A frame may have told of its stock before this did of the product.
      if (this.#news(product) || !known || paused !== product.paused) row.left(this.#stock.left(product.sku));
      row.time();
    }
    this.#empty.hidden = this.#rows.size > 0;
  }

  // update takes a stock frame; true if it was news.
  update(frame) {
    if (!this.#stock.apply(frame)) return false;
    this.#rows.get(frame.sku)?.left(frame.left);
    return true;
  }

  // take takes the items of a left frame; false if the shelf has to be looked at again:
  // something on it is new, or was changed.
  take(items) {
    let known = true;
    for (const item of items) {
      const row = this.#rows.get(item.sku), news = this.#news(item);
      known &&= row !== undefined && row.product.edited >= item.edited;
      if (!row || (!news && row.product.total === item.total && row.product.paused === item.paused)) continue;
      row.product.total = item.total;
      row.product.paused = item.paused;
      row.left(this.#stock.left(item.sku));
    }
    return known;
  }

  // end says that the room sells nothing any more.
  end() {
    this.#ended = true;
    for (const row of this.#rows.values()) row.end();
  }

  get selling() {
    return [...this.#rows].some(([sku, row]) => row.product.paused || this.#stock.left(sku) > 0);
  }

  // news takes what is said of a product's stock, if it is any: of what is closed for the
  // moment nobody knows how much is left.
  #news(item) {
    return !item.paused && this.#stock.apply(item);
  }

  product(sku) {
    return this.#rows.get(sku)?.product;
  }

  #add(product) {
    const row = newRow(product, this.#actions);
    this.#rows.set(product.sku, row);
    this.#list.append(row.node);
    if (this.#ended) row.end();
    return row;
  }
}

function newRow(product, actions) {
  const title = el("h3", { id: "ware-" + product.sku });
  const bar = el("span", { class: "bar-fill" });
  const stock = el("span", { class: "stock" });
  const window = el("span", { class: "window" });
  const buyText = el("span", { t: "buy" });
  const buy = el("button", { type: "button", class: "primary buy", "aria-describedby": "ware-" + product.sku, onclick: () => busy(buy, () => actions.buy(row.product)).then(() => row.time()) }, buyText);
  const add = iconButton(icon("cart"), "cart.add", { class: "plain round", onclick: () => busy(add, () => actions.add(row.product)).then(() => row.time()) });
  let units = null; // nobody has said yet
  let ended = false;

  const row = {
    product,
    node: el("li", { class: "ware-row", "data-sku": product.sku },
      picture(product),
      el("div", { class: "ware-text" },
        title,
        el("p", { class: "price-line" }, el("strong", { class: "price" }, yuan(product.fen)), product.per_user > 0 && el("span", { class: "muted", t: ["shelf.limit", { n: product.per_user }] })),
        el("div", { class: "bar", "aria-hidden": "true" }, bar),
        el("p", { class: "stock-line" }, stock, window)),
      el("div", { class: "ware-buttons" }, buy, add)),

    show(now) {
      this.product = now;
      title.textContent = now.title;
    },

    end() {
      ended = true;
      this.left(0);
    },

    left(n) {
      const before = units;
      units = n;
      const part = this.product.total > 0 ? n / this.product.total : 0;
      bar.style.setProperty("--part", String(Math.min(1, part)));
      this.node.classList.toggle("few", n > 0 && part <= few);
      this.node.classList.toggle("out", n === 0 && !this.product.paused);
      say(stock, ended ? "shelf.closed" : this.product.paused ? "shelf.paused" : n === 0 ? "shelf.out" : "shelf.left", { n: n.toLocaleString("en") });
      if (before !== null && (before === 0) !== (n === 0)) this.node.classList.add("flip");
      this.time();
    },

    // time says whether the sale is on, by the server's clock.
    time() {
      const at = now(), { opens, closes } = this.product;
      const early = opens > at, late = closes > 0 && closes <= at, { paused } = this.product;
      if (early) say(window, "shelf.opens", { time: time(opens - at) });
      else if (late) say(window, "shelf.closed");
      else if (closes > at && closes - at < 24 * 3_600_000) say(window, "shelf.closes", { time: time(closes - at) });
      else window.textContent = "";
      say(buyText, ended ? "shelf.over" : early ? "shelf.soon" : late ? "shelf.over" : paused ? "shelf.wait" : units === 0 ? "shelf.gone" : "buy");
      for (const button of [buy, add]) {
        if (!button.hasAttribute("aria-busy")) button.disabled = ended || early || late || paused || units === 0;
      }
    },
  };
  row.node.addEventListener("animationend", () => row.node.classList.remove("flip"));
  return row;
}
