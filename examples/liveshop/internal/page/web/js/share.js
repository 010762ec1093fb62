// The short link of a room.
import { call } from "./api.js";
import { busy, el, iconButton } from "./dom.js";
import { openDialog } from "./dialog.js";
import { icon } from "./icons.js";
import { fail, toast } from "./toast.js";

export function shareButton(room) {
  const button = iconButton(icon("share"), "share", { class: "round", onclick: () => share(room, button) });
  return button;
}

// share fetches the link of a room and shows it. The button that asked for it gets the
// focus back: it lost it while it waited.
export const share = (room, button) => busy(button, async () => {
  try {
    const { url } = await call("POST", `/rooms/${room}/share`, {});
    show(new URL(url, location.href).href).addEventListener("close", () => button.focus());
  } catch (err) {
    fail(err);
  }
});

function show(url) {
  const link = el("input", { readonly: true, value: url, label: "share.link", onfocus: () => link.select() });
  const copy = el("button", {
    type: "button", class: "primary",
    async onclick() {
      link.select();
      try {
        await navigator.clipboard.writeText(url);
        toast("share.copied", "good");
      } catch {
        toast("share.select"); // no clipboard here: the link is selected
      }
    },
  }, icon("copy"), el("span", { t: "share.copy" }));
  return openDialog("share.title", { class: "narrow" }, el("p", { class: "lead", t: "share.lead" }), el("div", { class: "row" }, link, copy));
}
