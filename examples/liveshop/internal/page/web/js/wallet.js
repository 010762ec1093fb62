// Recharging. Each package chosen has one key: clicked twice, or sent again because an
// answer was lost, it is booked once.
import { key, send } from "./api.js";
import { busy, el } from "./dom.js";
import { yuan } from "./format.js";
import { openDialog } from "./dialog.js";
import { fail, toast } from "./toast.js";
import * as session from "./session.js";

const packages = [600, 3_000, 9_800, 29_800, 64_800, 1_000_000]; // fen

export function openWallet() {
  const balance = el("strong", { class: "figure" }, yuan(session.user()?.balance ?? 0));
  const update = () => (balance.textContent = yuan(session.user()?.balance ?? 0));
  const dialog = openDialog("wallet.title", { class: "narrow" },
    el("p", { class: "lead" }, el("span", { t: "wallet.balance" }), " ", balance),
    el("div", { class: "packages" }, packages.map((fen) => {
      let intent = key();
      const button = el("button", {
        type: "button", class: "package",
        onclick: () => busy(button, async () => {
          try {
            const { balance: now } = await send("POST", "/recharge", { fen, key: intent });
            intent = key();
            session.setBalance(now);
            toast(["wallet.done", { sum: yuan(fen) }], "good");
          } catch (err) {
            fail(err);
          }
        }),
      }, el("span", { class: "figure" }, yuan(fen)));
      return button;
    })),
    el("p", { class: "hint", t: "wallet.hint" }));
  session.changes.addEventListener("balance", update);
  dialog.addEventListener("close", () => session.changes.removeEventListener("balance", update));
}
