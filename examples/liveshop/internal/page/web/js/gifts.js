// The row of gifts below the stage. What a gift did is seen when its frame comes back,
// like everybody else's; only what went wrong is told here.
import { get, key, send } from "./api.js";
import { busy, el, svg } from "./dom.js";
import { yuan } from "./format.js";
import { has, t } from "./i18n.js";
import { loggedIn } from "./login.js";
import { fail, toast } from "./toast.js";
import { openWallet } from "./wallet.js";
import * as session from "./session.js";

const shapes = {
  rose: ["#ff8095", "M12 12.5c-3-.8-4.8-2.8-4.8-5.8 1.9 0 2.9-.2 4.8-2.9 1.9 2.7 2.9 2.9 4.8 2.9 0 3-1.8 5-4.8 5.8zm0 0V21m0-2.5c2.2 0 4-1.3 4.2-3.8"],
  heart: ["#ff6f91", "M12 20s-7.5-4.6-7.5-10A4.2 4.2 0 0 1 12 7.3 4.2 4.2 0 0 1 19.5 10c0 5.4-7.5 10-7.5 10z"],
  cake: ["#ffc857", "M4 20v-7h16v7zM4 16c2 1.5 3.3 1.5 5.3 0s3.3 1.5 5.4 0 3.3 1.5 5.3 0M8 13V9.5M12 13V9.5M16 13V9.5M8 6.5h.01M12 6.5h.01M16 6.5h.01"],
  car: ["#59b8ff", "M3.5 16v-3.5l2-1 2.5-4h8l2.5 4 2 1V16zM7 18.5a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM17 18.5a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM6 11.5h12"],
  rocket: ["#a79bff", "M12 3c4 3 5 7 4 12H8C7 10 8 6 12 3zM8 12l-3 3v4l4-3M16 12l3 3v4l-4-3M12 9.5h.01M11 18v3M13 18v3"],
  other: ["#7be0a0", "M7 5h10l4 5-9 10L3 10zM3 10h18M9.5 10 12 20l2.5-10L12 5z"],
};

export function giftIcon(id) {
  const [colour, d] = shapes[id] ?? shapes.other;
  const node = svg("svg", { class: "icon gift-icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d }));
  node.style.color = colour;
  return node;
}

// giftTitle is what a gift is called in the visitor's language, if that is known.
export const giftTitle = (id, title) => (has("gift.name." + id) ? t("gift.name." + id) : title);

// giftRow returns the row for a room; targets() are those it may go to, {uid, name}.
export function giftRow(room, targets) {
  const list = el("div", { class: "gift-list", role: "group", label: "gift.list" });
  const to = el("select", { class: "gift-to", label: "gift.to" });
  const node = el("div", { class: "gifts" }, to, list);
  const intents = new Map(); // gift and receiver → key; after no answer the next click is the same gift

  async function give(gift) {
    if (!(await loggedIn())) return;
    const target = targets().find(({ uid }) => String(uid) === to.value) ?? targets()[0];
    const what = `${gift.id} ${target.uid}`;
    if (!intents.has(what)) intents.set(what, key());
    try {
      const answer = await send("POST", `/rooms/${room}/gifts`, { gift: gift.id, to: target.uid, key: intents.get(what) });
      intents.delete(what);
      session.setBalance(answer.balance);
    } catch (err) {
      if (err.code === "poor") openWallet();
      fail(err);
    }
  }

  get("/gifts").then((gifts) => {
    list.append(...gifts.map((gift) => {
      const button = el("button", { type: "button", class: "gift", onclick: () => busy(button, () => give(gift)) },
        giftIcon(gift.id), has("gift.name." + gift.id) ? el("span", { class: "gift-title", t: "gift.name." + gift.id }) : el("span", { class: "gift-title" }, gift.title), el("span", { class: "gift-price figure" }, yuan(gift.fen)));
      return button;
    }));
  }).catch(() => toast("gift.none", "bad"));

  // With one challenger there are two to give to.
  function update() {
    const all = targets();
    to.hidden = all.length < 2;
    const chosen = to.value;
    to.replaceChildren(...all.map(({ uid, name }) => el("option", { value: uid }, name)));
    if (all.some(({ uid }) => String(uid) === chosen)) to.value = chosen;
  }
  update();
  return { node, update };
}
