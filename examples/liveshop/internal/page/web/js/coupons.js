// A coupon for the order to be paid: a line to tick. Nothing is ticked by itself, so that
// the sum on the button does not change under the finger.
import { get } from "./api.js";
import { el } from "./dom.js";
import { yuan } from "./format.js";
import { say } from "./i18n.js";

export class CouponLine {
  #coupon = null;
  #text = el("span");
  #input = el("input", { type: "checkbox", onchange: () => this.#changed(this.off) });
  #changed;

  node = el("label", { class: "coupon", hidden: true }, this.#input, this.#text);

  // changed(off) is told what the coupon takes off, in fen.
  constructor(changed) {
    this.#changed = changed;
  }

  // offer shows the best of those that are good for a sum. Without one, or while they
  // rest, there is no line; nor if nobody can be asked: one pays as well without.
  async offer(sum) {
    const { coupons } = await get("/coupons").catch(() => ({}));
    const [best] = (coupons ?? []).filter((c) => c.min_fen <= sum).sort((a, b) => b.off - a.off);
    if (!best) return;
    this.#coupon = best;
    say(this.#text, "order.coupon", { off: yuan(best.off) });
    this.node.hidden = false;
  }

  hide() {
    this.node.hidden = true;
    this.#input.checked = false;
    this.#changed(0);
  }

  get used() {
    return this.#input.checked ? this.#coupon.coupon : undefined;
  }

  get off() {
    return this.#input.checked ? this.#coupon.off : 0;
  }
}
