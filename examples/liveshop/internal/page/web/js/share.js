// The short link of a room.
import { call } from "./api.js";
import { busy, el, iconButton } from "./dom.js";
import { openDialog } from "./dialog.js";
import { icon } from "./icons.js";
import { fail, toast } from "./toast.js";

export function shareButton(room) {
  const button = iconButton(icon("share"), "share", { class: "round", onclick: () => busy(button, () => share(room)) });
  return button;
}

export async function share(room) {
  try {
    const { url } = await call("POST", `/rooms/${room}/share`, {});
    show(new URL(url, location.href).href);
  } catch (err) {
    fail(err);
  }
}

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
  openDialog("share.title", { class: "narrow" }, el("p", { class: "lead", t: "share.lead" }), el("div", { class: "row" }, link, copy));
}
