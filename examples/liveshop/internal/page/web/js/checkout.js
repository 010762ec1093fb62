// From "buy" to "paid": an order token, the order, a countdown by the server's clock,
// the payment.
import { ApiError, get, send } from "./api.js";
import { now, tick } from "./clock.js";
import { CouponLine } from "./coupons.js";
import { busy, el } from "./dom.js";
import { left as time, yuan } from "./format.js";
import { say } from "./i18n.js";
import { icon } from "./icons.js";
import { openWallet } from "./wallet.js";
import { fail, toast } from "./toast.js";
import * as session from "./session.js";

const over = 1_500; // ms behind the end: by then the server has cancelled it, and is asked

export class Checkout {
  #room;
  #product;
  #intent = null; // {id, items}: an order whose answer is not known
  #order = null;
  #stop = null;

  node = el("section", { class: "panel order", hidden: true, tabindex: "-1", "aria-labelledby": "order-title" });

  constructor(room, product) {
    this.#room = room;
    this.#product = product;
  }

  close() {
    this.#stop?.();
  }

  hide() {
    this.close();
    this.#order = null;
    this.node.hidden = true;
  }

  // buy orders items; true if at least one of them is reserved.
  //
  // The token names the order before it is made. As long as nobody knows whether it
  // was made, the same items are ordered under the same token: one order, however
  // often it is clicked.
  async buy(items) {
    const wanted = JSON.stringify(items);
    try {
      if (this.#intent?.items !== wanted) {
        const { order_id: id } = await send("POST", "/orders/token", {});
        this.#intent = { id, items: wanted };
      }
      const answer = await send("POST", "/orders", { order_id: this.#intent.id, room: this.#room, items });
      this.#intent = null;
      this.show({ state: "pending", ...answer });
      if (answer.failed?.length > 0) toast(["order.partial", { n: answer.failed.length }], "bad");
      else toast("order.got", "good");
      this.node.scrollIntoView({ block: "nearest" });
      return true;
    } catch (err) {
      if (err instanceof ApiError && err.status >= 400 && err.status < 500) this.#intent = null;
      fail(err);
      return false;
    }
  }

  // There may be another one to pay behind it.
  #next() {
    this.hide();
    this.restore().catch(fail);
  }

  // restore shows what is still to be paid: the page may have been reloaded.
  async restore() {
    const { orders } = await get("/orders");
    const open = (orders ?? []).find((order) => order.state === "pending" && String(order.room) === String(this.#room));
    if (!open || this.#order) return;
    // The list is a moment behind: the order may have been paid since.
    const order = await get("/orders/" + open.order_id);
    if (order.state === "pending" && !this.#order) this.show(order);
  }

  // update takes an order frame.
  update({ order_id: id, state }) {
    if (this.#order && String(this.#order.order_id) === String(id) && this.#order.state !== state) {
      this.show({ ...this.#order, state });
    }
  }

  show(order) {
    const focused = this.node.contains(document.activeElement);
    this.#order = order;
    this.#stop?.();
    this.#stop = null;
    this.node.hidden = false;
    this.node.dataset.state = order.state;
    const items = order.items ?? [];
    const sum = order.fen ?? items.reduce((all, { sku, qty }) => all + qty * (this.#product(sku)?.fen ?? 0), 0);
    this.node.replaceChildren(
      el("header", { class: "panel-head" },
        el("h2", { id: "order-title", t: "order." + order.state }),
        order.state === "pending" ? this.#countdown(order) : el("button", { type: "button", class: "plain round small", label: "close", onclick: () => this.#next() }, icon("close"))),
      el("ul", { class: "lines" }, items.map(({ sku, qty }) => el("li", { class: "line" },
        el("span", { class: "grow" }, this.#product(sku)?.title ?? sku), el("span", { class: "figure muted" }, "×" + qty)))),
      order.state === "pending" ? this.#payRow(order, sum) : el("p", { class: "hint", t: `order.${order.state}.hint` }));
    if (focused) this.node.focus();
  }

  #countdown(order) {
    const text = el("span", { class: "figure" });
    const clock = el("span", { class: "countdown", role: "timer", label: "order.left" }, text);
    const all = Math.max(1, order.expires_at - now());
    let asked = false;
    this.#stop = tick(() => {
      const rest = order.expires_at - now();
      text.textContent = time(rest);
      clock.style.setProperty("--part", String(Math.max(0, Math.min(1, rest / all))));
      clock.classList.toggle("soon", rest < 5_000);
      if (rest < -over && !asked) {
        asked = true;
        get("/orders/" + order.order_id).then((now) => this.update(now)).catch(fail);
      }
    });
    return clock;
  }

  #payRow(order, sum) {
    const text = el("span");
    const cost = (off) => say(text, "order.pay", { sum: yuan(sum - off) });
    const coupon = new CouponLine(cost);
    const pay = el("button", { type: "button", class: "primary wide pay", onclick: () => busy(pay, () => this.#pay(order, coupon)) }, text);
    cost(0);
    coupon.offer(sum);
    return el("div", {}, coupon.node, pay);
  }

  async #pay(order, coupon) {
    try {
      const answer = await send("POST", `/orders/${order.order_id}/pay`, { coupon: coupon.used });
      session.setBalance(answer.balance);
      this.show({ ...order, state: answer.state });
    } catch (err) {
      if (err.code === "poor") openWallet();
      if (String(err.code).startsWith("coupon")) coupon.hide();
      fail(err);
      if (err.status === 409) await get("/orders/" + order.order_id).then((now) => this.update(now), fail);
    }
  }
}
