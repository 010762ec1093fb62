// What the host of a room has at hand, where everybody else has the gifts.
import { send } from "./api.js";
import { el } from "./dom.js";
import { form, openDialog } from "./dialog.js";
import { openShelf } from "./hostshelf.js";
import { openRain } from "./hostrain.js";
import { icon } from "./icons.js";
import { openOwnRoom } from "./openroom.js";
import { openPost } from "./post.js";
import { share } from "./share.js";

export class Desk {
  #room;
  #tools;
  #again = el("button", { type: "button", class: "primary", onclick: () => openOwnRoom() }, icon("camera"), el("span", { t: "own.open" }));
  #lead = el("p", { class: "desk-lead" }, el("strong", { id: "desk-title", t: "desk.title" }), el("span", { class: "hint", t: "desk.hint" }));

  // wares: onShelf(sku), shown(products) when something was put there; closed() when the
  // room was closed.
  constructor(room, { onShelf, shown, closed }) {
    this.#room = room;
    const tool = (name, key, open) => {
      const button = el("button", { type: "button", class: "gift desk-tool " + name, onclick: () => open(button) }, icon(name), el("span", { class: "gift-title", t: key }));
      return button;
    };
    this.#tools = [
      tool("packet", "desk.rain", () => openRain(room.id)),
      tool("box", "desk.shelf", () => openShelf(room.id, onShelf, shown)),
      tool("pen", "desk.post", () => openPost()),
      tool("share", "share", (button) => share(room.id, button)),
      tool("stop", "desk.close", () => openClose(room.id, closed)),
    ];
    this.node = el("section", { class: "desk", hidden: true, "aria-labelledby": "desk-title" }, el("div", { class: "desk-row" }, this.#lead, this.#tools, this.#again));
  }

  // show says whether the visitor is the host; a closed room has nothing to be done in.
  show(mine) {
    this.node.hidden = !mine;
    for (const tool of this.#tools) tool.hidden = !this.#room.open;
    this.#again.hidden = this.#room.open;
  }
}

function openClose(room, closed) {
  const dialog = openDialog("desk.close", { class: "narrow" }, form("desk.close.go", async () => {
    await send("POST", `/rooms/${room}/close`, {});
    dialog.close();
    closed();
  }, el("p", { class: "lead", t: "desk.close.lead" })));
}
