// What is registered for a host, and goes on the shelf of the open room with a click.
import { explain, get, send } from "./api.js";
import { busy, el } from "./dom.js";
import { openDialog } from "./dialog.js";
import { yuan } from "./format.js";
import { fail } from "./toast.js";
import * as session from "./session.js";

// openShelf shows the list; shown(products) gets the shelf of the room when it changed.
export async function openShelf(room, onShelf, shown) {
  const list = el("ul", { class: "lines" });
  const state = el("p", { class: "muted", role: "status", t: "loading" });
  openDialog("host.shelf", {}, list, state);
  try {
    const { products } = await get("/products");
    list.append(...products.map((product) => line(room, product, onShelf(product.sku), shown)));
    state.replaceWith(el("p", { class: "hint", t: [products.length > 0 ? "host.shelf.hint" : "own.bare", { n: session.user()?.uid }] }));
  } catch (err) {
    state.textContent = explain(err);
  }
}

function line(room, { sku, title, fen, total }, there, shown) {
  const put = el("button", {
    type: "button", class: "quiet small", label: ["host.shelf.put.label", { title }], t: "host.shelf.put",
    onclick: () => busy(put, async () => {
      try {
        const { products } = await send("POST", `/rooms/${room}/products`, { sku });
        shown(products);
        put.replaceWith(done());
      } catch (err) {
        fail(err);
      }
    }),
  });
  return el("li", { class: "line", "data-registered": sku }, el("span", { class: "grow" }, title,
    el("span", { class: "muted figure block" }, `${yuan(fen)} × ${total.toLocaleString("en")}`)), there ? done() : put);
}

const done = () => el("span", { class: "badge paid", t: "host.shelf.there" });
