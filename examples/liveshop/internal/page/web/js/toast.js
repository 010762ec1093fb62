// Short messages that go away by themselves. The container is a live region: what
// appears there is read out.
import { explain } from "./api.js";
import { el } from "./dom.js";

const stay = 4_500; // ms
const most = 4;

// toast shows a text: a key, or [key, vars]. kind: "good", "bad" or none.
export function toast(text, kind = "") {
  put(el("p", { class: "toast " + kind, t: text }));
}

// fail tells what went wrong, in the server's words where there are no own.
export function fail(err) {
  put(el("p", { class: "toast bad" }, explain(err)));
}

function put(node) {
  const box = document.getElementById("toasts");
  // A modal dialog covers everything else, and hides it from screen readers.
  (document.querySelector("dialog[open]") ?? document.body).append(box);
  box.append(node);
  while (box.children.length > most) box.firstChild.remove();
  setTimeout(() => node.remove(), stay);
}
