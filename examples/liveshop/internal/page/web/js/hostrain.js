// A rain, from the host's side: paid for first, then started. What was paid for and not
// started is found again, also by a page that was reloaded in between.
import { explain, get, key, send } from "./api.js";
import { el } from "./dom.js";
import { field, form, openDialog } from "./dialog.js";
import { yuan } from "./format.js";
import { t } from "./i18n.js";
import { toast } from "./toast.js";
import { openWallet } from "./wallet.js";
import * as session from "./session.js";

export function openRain(room) {
  const body = el("div", { class: "sheet-body" });
  const dialog = openDialog("desk.rain", { class: "narrow" }, body);

  async function look() {
    body.replaceChildren(el("p", { class: "muted", role: "status", t: "loading" }));
    try {
      const { granted, ready } = await get(`/rooms/${room}/rain`);
      if (!granted) body.replaceChildren(el("p", { class: "lead", t: ["host.rain.not", { n: session.user()?.uid }] }));
      else body.replaceChildren(ready ? start(ready) : prepare());
      (body.querySelector("input, .primary") ?? dialog.querySelector("button")).focus();
    } catch (err) {
      body.replaceChildren(el("p", { class: "problem", role: "alert" }, explain(err)));
    }
  }

  function prepare() {
    const total = el("input", { id: "rain-total", type: "number", required: true, min: 0.01, max: 1_000_000, step: 0.01, inputmode: "decimal", value: 50 });
    const packets = el("input", { id: "rain-packets", type: "number", required: true, min: 1, max: 10_000, step: 1, inputmode: "numeric", value: 20 });
    const recharge = el("button", { type: "button", class: "quiet", hidden: true, t: "wallet.title", onclick: openWallet });
    let intent = {}; // sent again, because nobody knows what became of it, it is the same rain
    return form("host.rain.prepare", async () => {
      const rain = { total: Math.round(total.valueAsNumber * 100), count: packets.valueAsNumber };
      if (rain.total < rain.count) throw new Error(t("host.rain.thin"));
      if (intent.total !== rain.total || intent.count !== rain.count) intent = { ...rain, key: key() };
      try {
        const { balance } = await send("POST", `/rooms/${room}/rain/prepare`, intent);
        session.setBalance(balance);
      } catch (err) {
        recharge.hidden = err.code !== "poor";
        throw err;
      }
      await look();
    }, el("p", { class: "lead", t: "host.rain.lead" }), el("div", { class: "pair" }, field("host.rain.total", total), field("host.rain.packets", packets)), recharge);
  }

  function start(rain) {
    return form("host.rain.start", async () => {
      await send("POST", `/rooms/${room}/rain/start`, { id: rain.id });
      dialog.close();
      toast("host.rain.done", "good");
    }, el("p", { class: "lead", t: ["host.rain.ready", { sum: yuan(rain.total), n: rain.count }] }));
  }
  return look();
}
