// Everything that was said, as a list: the stage shows it flying by, this can be read.
import { el } from "./dom.js";
import { hue } from "./format.js";

const most = 80; // lines

export class Chat {
  #list = el("ol", { class: "chat-list" });

  #quiet = el("p", { class: "muted quiet-chat", t: "chat.empty" });

  node = el("section", { class: "panel chat", "aria-labelledby": "chat-title" },
    el("header", { class: "panel-head" }, el("h2", { id: "chat-title", t: "chat.title" })),
    el("div", { class: "chat-scroll", tabindex: "0", role: "log", "aria-live": "polite", "aria-labelledby": "chat-title" }, this.#list, this.#quiet));

  say(name, text, own) {
    const who = el("span", { class: "who" }, name);
    who.style.setProperty("--hue", String(hue(name)));
    this.#add(el("li", { class: own ? "own" : "" }, who, " ", text));
  }

  // note adds what was done, not said: a key, or [key, vars].
  note(text, kind = "") {
    this.#add(el("li", { class: "note " + kind, t: text }));
  }

  clear() {
    this.#list.replaceChildren();
  }

  #add(line) {
    this.#list.append(line);
    while (this.#list.childElementCount > most) this.#list.firstChild.remove();
  }
}
