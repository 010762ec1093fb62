// The row of gifts below the stage. What a gift did is seen when its frame comes back,
// like everybody else's; only what went wrong is told here.
import { get, key, send } from "./api.js";
import { busy, el, svg } from "./dom.js";
import { hue, yuan } from "./format.js";
import { loggedIn } from "./login.js";
import { fail, toast } from "./toast.js";
import { openWallet } from "./wallet.js";
import * as session from "./session.js";

const shapes = [
  [1_000, "M12 13c-3-1-5-3-5-6 2 0 3 0 5-3 2 3 3 3 5 3 0 3-2 5-5 6zm0 0v8m0-3c2 0 4-1 4-3"], // a flower
  [5_000, "M12 4l2.5 5.2 5.7.7-4.2 3.9 1.1 5.7-5.1-2.8-5.1 2.800L8 13.8 3.8 9.900l5.7-.7z"], // a star
  [15_000, "M7 5h10l4 5-9 10L3 10zM3 10h18M9.5 10 12 20l2.5-10L12 5z"], // a diamond
  [Infinity, "M12 3c4 3 5 7 4 12H8C7 10 8 6 12 3zM8 12l-3 3v4l4-3M16 12l3 3v4l-4-3M12 9.500h.01M11 18v3M13 18v3"], // a rocket
];

export function giftIcon(gift) {
  const [, d] = shapes.find(([below]) => gift.fen < below);
  const node = svg("svg", { class: "icon gift-icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d }));
  node.style.color = `hsl(${hue(gift.title)} 90% 74%)`;
  return node;
}

// giftRow returns the row for a room; targets() are those it may go to, {uid, name}.
export function giftRow(room, targets) {
  const list = el("div", { class: "gift-list", role: "group", label: "gift.list" });
  const to = el("select", { class: "gift-to", label: "gift.to" });
  const node = el("div", { class: "gifts" }, to, list);

  async function give(gift) {
    if (!(await loggedIn())) return;
    const target = targets().find(({ uid }) => String(uid) === to.value) ?? targets()[0];
    try {
      const answer = await send("POST", `/rooms/${room}/gifts`, { gift: gift.id, to: target.uid, key: key() });
      session.setBalance(answer.balance);
    } catch (err) {
      fail(err);
      if (err.code === "poor") openWallet();
    }
  }

  get("/gifts").then(({ gifts }) => {
    list.append(...gifts.map((gift) => {
      const button = el("button", { type: "button", class: "gift", onclick: () => busy(button, () => give(gift)) },
        giftIcon(gift), el("span", { class: "gift-title" }, gift.title), el("span", { class: "gift-price figure" }, yuan(gift.fen)));
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
