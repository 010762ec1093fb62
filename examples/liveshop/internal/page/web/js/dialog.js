// Modal dialogs on <dialog>: the browser keeps the focus inside and gives it back.
import { explain } from "./api.js";
import { busy, el } from "./dom.js";
import { icon } from "./icons.js";

// openDialog shows a dialog and returns it. It is gone from the page once closed, by
// its button, Escape, a click beside it, or close().
export function openDialog(title, attributes, ...content) {
  const id = "dialog-" + title.replace(/\W/g, "-");
  const dialog = el("dialog", { "aria-labelledby": id, ...attributes },
    el("div", { class: "sheet" },
      el("header", { class: "sheet-head" },
        el("h2", { id, t: title }),
        el("button", { type: "button", class: "plain round", label: "close", onclick: () => dialog.close() }, icon("close"))),
      ...content));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    document.body.append(document.getElementById("toasts"));
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

// field is an input with what it is called above it, and below it a hint, if there is one.
export function field(key, input, hint) {
  return el("div", { class: "field" }, el("label", { for: input.id, t: key }), input, hint && el("p", { class: "hint", t: hint }));
}

// form runs work when it is sent, with what went wrong told in it.
export function form(submitText, work, ...content) {
  const problem = el("p", { class: "problem", role: "alert" });
  const submit = el("button", { class: "primary", t: submitText });
  return el("form", {
    onsubmit(event) {
      event.preventDefault();
      busy(submit, async () => {
        problem.textContent = "";
        try {
          await work();
        } catch (err) {
          problem.textContent = explain(err);
        }
      });
    },
  }, ...content, problem, submit);
}
