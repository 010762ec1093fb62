// A red-packet rain: announced, falling, over. One grab a visitor.
import { explain, get, send } from "./api.js";
import { now, tick } from "./clock.js";
import { busy, el } from "./dom.js";
import { left as time, yuan } from "./format.js";
import { say } from "./i18n.js";
import { icon } from "./icons.js";
import { loggedIn } from "./login.js";
import * as session from "./session.js";

const tolerance = 2_000; // ms

export class Rain {
  #room;
  #packets;
  #rain = null;
  #falling = false;
  #grabbed = false;
  #ended = false;
  #text = el("span");
  #button = el("button", { type: "button", class: "grab", onclick: () => this.grab() }, icon("packet"), this.#text);
  #stop;

  node = el("div", { class: "rain", hidden: true }, this.#button);

  constructor(room, packets) {
    this.#room = room;
    this.#packets = packets;
    this.#stop = tick(() => this.#time());
  }

  close() {
    this.#stop();
  }

  // end takes a rain away whose room has closed.
  end() {
    this.#ended = true;
    this.#rain = null;
    this.#packets.stop();
    this.node.hidden = true;
  }

  // show takes {id, starts, ends, total, count}.
  show(rain) {
    if (!rain || this.#ended || rain.ends <= now()) return;
    if (String(this.#rain?.id) !== String(rain.id)) this.#grabbed = false;
    this.#rain = rain;
    this.#falling = false;
    this.#time();
  }

  async grab() {
    const rain = this.#rain;
    if (!rain || this.#grabbed || now() < rain.starts || !(await loggedIn())) return;
    await busy(this.#button, async () => {
      try {
        const fen = await this.#packet(rain);
        get("/me").then(({ balance }) => session.setBalance(balance)).catch(() => {});
        say(this.#text, "rain.got", { sum: yuan(fen) });
        this.#grabbed = true;
      } catch (err) {
        this.#text.textContent = explain(err);
        this.#grabbed = err.code === "late" || err.code === "empty";
      }
    });
    this.#button.disabled = this.#grabbed;
    if (this.#grabbed) this.#packets.stop();
  }

  // Who clicks at the first moment may be early by what the two clocks differ.
  async #packet(rain) {
    for (;;) {
      try {
        return (await send("POST", `/rooms/${this.#room}/rain/grab`, { id: rain.id })).fen;
      } catch (err) {
        if (err.code !== "early" || now() > rain.starts + tolerance) throw err;
        await new Promise((resolve) => setTimeout(resolve, 150));
      }
    }
  }

  #time() {
    const rain = this.#rain;
    if (!rain) return;
    const at = now();
    this.node.hidden = at >= rain.ends + 2_000;
    if (at >= rain.ends) {
      this.#packets.stop();
      if (!this.#grabbed) say(this.#text, "rain.over");
      this.#button.disabled = true;
      if (this.node.hidden) this.#rain = null;
    } else if (at < rain.starts) {
      this.#button.disabled = true;
      say(this.#text, "rain.soon", { time: time(rain.starts - at), sum: yuan(rain.total) });
    } else if (!this.#falling) {
      this.#falling = true;
      if (this.#grabbed) return;
      this.#button.disabled = false;
      say(this.#text, "rain.grab");
      this.#packets.rain(rain.ends - at);
    }
  }
}
