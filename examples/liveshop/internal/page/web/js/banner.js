// "Ann sent a rocket", sliding in over the stage; at most three at a time.
import { el } from "./dom.js";
import { initial, yuan } from "./format.js";
import { giftIcon, giftTitle } from "./gifts.js";

const stay = 3_600; // ms
const most = 3;

export function banner(box, gift, to) {
  const node = el("div", { class: "gift-banner" },
    el("span", { class: "avatar" }, initial(gift.name)),
    el("span", { class: "banner-text" }, el("strong", {}, gift.name), el("span", { t: ["gift.sent", { gift: giftTitle(gift.gift, gift.title), to }] })),
    giftIcon(gift.gift), el("span", { class: "figure" }, yuan(gift.fen)));
  box.append(node);
  while (box.childElementCount > most) box.firstChild.remove();
  setTimeout(() => node.remove(), stay);
}
