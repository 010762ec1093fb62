// What the operator does for hosts: grants, and products.
import { get, send } from "./api.js";
import { pictures } from "./art.js";
import { el } from "./dom.js";
import { field, form, openDialog } from "./dialog.js";
import { toast } from "./toast.js";
import * as session from "./session.js";

// hostField asks whom it is about: the host of the room that is looked at, or who looks.
function hostField(room) {
  const input = el("input", { id: "host-uid", type: "number", required: true, min: 1, step: 1, inputmode: "numeric", value: session.user()?.uid });
  if (room) get("/rooms/" + room).then(({ host }) => (input.value = host?.uid ?? input.value), () => {});
  return { node: field("op.host", input, "op.host.hint"), uid: () => input.valueAsNumber };
}

export function grantDialog(room) {
  const host = hostField(room);
  const what = el("fieldset", { class: "choice" }, el("legend", { t: "op.grant.what" }),
    ["rain", "star"].map((grant) => el("label", {}, el("input", { type: "radio", name: "grant", value: grant, checked: grant === "rain" }), el("span", { t: "grant." + grant }))));
  const dialog = openDialog("op.grant", { class: "narrow" }, form("op.grant.go", async () => {
    await send("POST", "/admin/grants", { uid: host.uid(), grant: what.querySelector(":checked").value });
    dialog.close();
    toast("op.grant.done", "good");
  }, host.node, what));
}

// A product is registered under a SKU of its own: sent again it is the same product.
export function productDialog(room) {
  const sku = "p-" + Array.from(crypto.getRandomValues(new Uint8Array(6)), (b) => b.toString(16).padStart(2, "0")).join("");
  const host = hostField(room);
  const number = (id, value, attributes) => el("input", { id, type: "number", required: true, min: 1, step: 1, inputmode: "numeric", value, ...attributes });
  const title = el("input", { id: "ware-title", required: true, maxlength: 60, autocomplete: "off" });
  const price = number("ware-price", 9.9, { min: 0.01, step: 0.01, inputmode: "decimal" });
  const units = number("ware-units", 50), each = number("ware-each", 2, { min: 0 });
  const image = el("select", { id: "ware-image" }, pictures.map((name) => el("option", { value: name, t: "picture." + name })));
  const dialog = openDialog("op.product", { class: "narrow" }, form("op.product.go", async () => {
    await send("POST", "/admin/products", {
      sku, host: host.uid(), title: title.value, image: image.value,
      fen: Math.round(price.valueAsNumber * 100), total: units.valueAsNumber, per_user: each.valueAsNumber,
    });
    dialog.close();
    toast("op.product.done", "good");
  }, host.node, field("ware.title", title),
  el("div", { class: "pair" }, field("ware.price", price), field("ware.units", units)),
  el("div", { class: "pair" }, field("ware.each", each), field("ware.image", image))));
}
