// What the visitor has ordered, newest first. The list is what SQL has by now; of an order
// that is still to be paid there, its own page knows more.
import { explain, get } from "./api.js";
import { el } from "./dom.js";
import { openDialog } from "./dialog.js";
import { yuan } from "./format.js";
import { language } from "./i18n.js";

export async function openOrders() {
  const list = el("div", { role: "status" }, el("p", { class: "muted", t: "loading" }));
  openDialog("orders.title", {}, list);
  try {
    const { orders } = await get("/orders");
    list.replaceChildren(orders?.length > 0 ? el("ul", { class: "orders" }, orders.map(line)) : el("p", { class: "muted pad", t: "orders.empty" }));
    for (const order of orders ?? []) {
      if (order.state === "pending") get("/orders/" + order.order_id).then((now) => document.getElementById(idOf(now))?.replaceWith(line({ ...order, state: now.state })), () => {});
    }
  } catch (err) {
    list.replaceChildren(el("p", { class: "problem" }, explain(err)));
  }
}

const idOf = ({ order_id: id }) => "order-" + id;

function line(order) {
  const items = (order.items ?? []).map(({ title, sku, qty }) => `${title ?? sku} ×${qty}`).join(", ");
  return el("li", { class: "order-line", id: idOf(order) },
    el("span", { class: "grow" }, el("strong", {}, items),
      el("span", { class: "muted block" }, new Date(order.created_ms).toLocaleString(language()), " · ", String(order.order_id))),
    el("span", { class: "figure" }, yuan((order.fen ?? 0) - (order.off ?? 0))),
    order.state === "pending"
      ? el("a", { class: "badge pending", href: "#/rooms/" + order.room, t: "state.pending", onclick() { this.closest("dialog").close(); } })
      : el("span", { class: "badge " + order.state, t: "state." + order.state }));
}
