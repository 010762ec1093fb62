// A room of one's own: opened, or gone back to.
import { get, send } from "./api.js";
import { busy, el } from "./dom.js";
import { field, form, openDialog } from "./dialog.js";
import { say } from "./i18n.js";
import { icon } from "./icons.js";
import { loggedIn } from "./login.js";
import { fail, toast } from "./toast.js";
import * as session from "./session.js";

// ownRoomButton leads to the visitor's room, or opens one. close ends it.
export function ownRoomButton() {
  const text = el("span");
  const node = el("button", { type: "button", class: "own-room", onclick: () => busy(node, go) }, icon("camera"), text);

  const ask = async () => (session.user() ? (await get("/rooms/mine")).room : null);
  const show = (room) => say(text, room ? "own.enter" : "own.open");
  const look = () => ask().then(show, () => show(null)); // asked again when it is clicked

  async function go() {
    if (!(await loggedIn())) return;
    try {
      const room = await ask();
      if (room) location.hash = "#/rooms/" + room.id;
      else openOwnRoom();
    } catch (err) {
      fail(err);
    }
  }

  for (const what of ["login", "logout"]) session.changes.addEventListener(what, look);
  show(null);
  look();
  return {
    node,
    close() {
      for (const what of ["login", "logout"]) session.changes.removeEventListener(what, look);
    },
  };
}

// openOwnRoom asks what the room is to be and goes there. Clicked twice it is one room:
// a host has one at a time.
export function openOwnRoom() {
  const title = el("input", { id: "own-title", required: true, maxlength: 80, autocomplete: "off", hint: "own.name.hint" });
  const kinds = el("fieldset", { class: "choice" }, el("legend", { t: "own.kind" }),
    ["normal", "pk"].map((kind) => el("label", {}, el("input", { type: "radio", name: "kind", value: kind, checked: kind === "normal" }), el("span", { t: "lobby.kind." + kind }))));
  const wares = el("p", { class: "hint", role: "status", t: "loading" });
  const dialog = openDialog("own.open", { class: "narrow" }, form("own.go", async () => {
    const room = await send("POST", "/rooms", { title: title.value, kind: kinds.querySelector(":checked").value });
    dialog.close();
    location.hash = "#/rooms/" + room.id;
    toast("own.done", "good");
  }, field("own.name", title), kinds, wares));
  title.focus();
  get("/products").then(({ products }) => {
    if (products.length > 0) say(wares, "own.wares", { wares: products.map((p) => p.title).join(" · ") });
    else say(wares, "own.bare", { n: session.user()?.uid });
  }, () => wares.remove());
}
