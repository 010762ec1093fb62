// Phone and code. In this demonstration the code is always the same and is said so.
import { call, explain } from "./api.js";
import { busy, el } from "./dom.js";
import { say } from "./i18n.js";
import { openDialog } from "./dialog.js";
import { toast } from "./toast.js";
import * as session from "./session.js";

let asking = null;

// login asks who it is; false if the visitor would rather not.
export function login() {
  asking ??= new Promise((resolve) => ask(resolve)).finally(() => (asking = null));
  return asking;
}

// loggedIn is true at once for who is logged in, and asks others.
export const loggedIn = async () => session.user() !== null || login();

function ask(resolve) {
  const phone = el("input", { id: "phone", name: "phone", type: "tel", inputmode: "numeric", autocomplete: "tel", required: true, pattern: "1[0-9]{10}", maxlength: 11, hint: "login.phone.hint" });
  const code = el("input", { id: "code", name: "code", inputmode: "numeric", autocomplete: "one-time-code", pattern: "[0-9]{4,6}", maxlength: 6 });
  const codeRow = el("div", { class: "field", hidden: true },
    el("label", { for: "code", t: "login.code" }), code, el("p", { class: "hint", t: "login.code.hint" }));
  const problem = el("p", { class: "problem", role: "alert" });
  const submit = el("button", { class: "primary", t: "login.send" });
  let sent = false;

  const form = el("form", {
    onsubmit(event) {
      event.preventDefault();
      busy(submit, async () => {
        problem.textContent = "";
        try {
          await (sent ? finish() : sendCode());
        } catch (err) {
          problem.textContent = explain(err);
        }
      });
    },
  },
  el("div", { class: "field" }, el("label", { for: "phone", t: "login.phone" }), phone),
  codeRow, problem, submit);

  const dialog = openDialog("login.title", { class: "narrow" }, el("p", { class: "lead", t: "login.lead" }), form);
  dialog.addEventListener("close", () => resolve(session.user() !== null));

  async function sendCode() {
    await call("POST", "/sms", { phone: phone.value });
    sent = true;
    codeRow.hidden = false;
    code.required = true;
    say(submit, "login.enter");
    code.focus();
  }

  async function finish() {
    const answer = await call("POST", "/login", { phone: phone.value, code: code.value });
    session.begin(answer);
    toast("login.done", "good");
    dialog.close();
  }
}
