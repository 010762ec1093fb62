// What a room looks like: the stage with what flies over it, the shelf, the chat; and
// what each frame changes of it.
import { Backdrop } from "./backdrop.js";
import { banner } from "./banner.js";
import { Bursts } from "./bursts.js";
import { Cart } from "./cart.js";
import { Chat } from "./chat.js";
import { Checkout } from "./checkout.js";
import { Desk } from "./desk.js";
import { el } from "./dom.js";
import { followButton } from "./follow.js";
import { count, hue, initial, yuan } from "./format.js";
import { giftRow, giftTitle } from "./gifts.js";
import { say, t } from "./i18n.js";
import { icon } from "./icons.js";
import { Lanes } from "./lanes.js";
import { likeButton } from "./likes.js";
import { loggedIn } from "./login.js";
import { Packets } from "./packets.js";
import { PK } from "./pk.js";
import { Rain } from "./rain.js";
import { shareButton } from "./share.js";
import { Shelf } from "./shelf.js";
import { Stage } from "./stage.js";
import { fail, toast } from "./toast.js";
import * as session from "./session.js";

export class RoomView {
  #room;
  #names = new Map(); // uid → name, of whom this page has heard
  #air = el("span", { class: "badge live", t: "live" });
  #online = el("span", { class: "figure" });
  #likes = el("span", { class: "figure" });
  #views = el("span", { class: "figure" });
  #likeCount = 0;
  #state = el("div", { class: "connection", role: "status" });
  #banners = el("div", { class: "banners", "aria-hidden": "true" });
  #chat = new Chat();
  #lanes = new Lanes(() => {
    const above = this.#pk.node.hidden ? this.#top : this.#pk.node;
    return above.offsetTop + above.offsetHeight + 14;
  });
  #bursts = new Bursts();
  #packets = new Packets();
  #pk;
  #backdrop;
  #rain;
  #shelf;
  #cart;
  #follow;
  #checkout;
  #desk;
  #gifts;
  #stage;
  #title;
  #top; // the stage's head
  #changed;

  // speak(text) sends a comment; false if there is no connection. changed() is called
  // when the shelf has to be looked at again.
  constructor(room, { speak, changed }) {
    this.#room = room;
    this.#changed = changed;
    this.#names.set(String(room.host.uid), room.host.name);
    this.#rain = new Rain(room.room.id, this.#packets);
    this.#pk = new PK(room.room, (uid) => this.#challenger(uid), (pk) => this.#showPK(pk));
    this.#shelf = new Shelf({ buy: (p) => this.#buy([{ sku: p.sku, qty: 1 }]), add: (p) => this.#add(p) });
    const product = (sku) => this.#shelf.product(sku);
    this.#checkout = new Checkout(room.room.id, product);
    this.#cart = new Cart(room.room.id, (items) => this.#buy(items));
    this.#gifts = giftRow(room.room.id, () => this.#targets());
    this.#desk = new Desk(room.room, { onShelf: (sku) => product(sku) !== undefined, shown: (products) => this.stock(products), closed: () => this.#close() });
    this.#backdrop = new Backdrop(hue(room.room.id));

    this.#follow = followButton(room.host.uid);

    const canvas = el("canvas", { "aria-hidden": "true", onclick: (event) => this.#hit(event) });
    this.#title = el("h1", { tabindex: "-1" }, room.room.title);
    this.#top = el("div", { class: "stage-top" },
      el("a", { class: "round plain", href: "#/", label: "room.back" }, icon("back")),
      el("span", { class: "avatar", "aria-hidden": "true" }, initial(room.host.name)),
      el("div", { class: "stage-title" }, this.#title, el("p", { class: "muted" }, room.host.name)),
      this.#follow.node,
      el("div", { class: "figures" },
        this.#air, pair("people", "online", this.#online), pair("heart", "likes", this.#likes), pair("eye", "views", this.#views)));
    this.node = el("div", { class: "room" },
      el("div", { class: "room-main" },
        el("div", { class: "stage" }, canvas, this.#top, this.#pk.node, this.#banners, this.#rain.node, this.#state),
        this.#bar(speak), this.#gifts.node, this.#desk.node),
      el("div", { class: "room-side" }, this.#checkout.node, this.#shelf.node, this.#cart.node, this.#chat.node));
    this.#stage = new Stage(canvas, [this.#backdrop, this.#bursts, this.#packets, this.#lanes]);
    this.refresh(room);
  }

  close() {
    this.#stage.close();
    for (const part of [this.#pk, this.#rain, this.#shelf, this.#checkout]) part.close();
  }

  focus() {
    this.#title.focus({ preventScroll: true });
  }

  // refresh takes the room as it was just fetched.
  refresh(room) {
    this.#online.textContent = count(room.online);
    this.#backdrop.online = room.online;
    this.#views.textContent = count(room.views);
    this.#setLikes(room.likes);
    this.#follow.show(room.following);
    this.#shelf.show(room.products ?? []);
    this.#showPK(room.pk);
    this.#rain.show(room.rain);
    this.#chat.clear();
    for (const frame of room.last ?? []) this.#history(frame);
    this.#role();
    this.#stage.refresh();
  }

  // selling says whether there is a figure that may change without a frame.
  get selling() {
    return this.#shelf.selling;
  }

  stock(products) {
    this.#shelf.show(products);
  }

  // restore fetches what the visitor left here: the cart, an unpaid order.
  restore() {
    this.#heard(session.user());
    this.#role();
    this.#cart.load().catch(fail);
    this.#checkout.restore().catch(fail);
  }

  // forget takes away what belonged to a visitor who logged out.
  forget() {
    this.#role();
    this.#cart.clear();
    this.#checkout.hide();
  }

  connection(state) {
    if (!this.#room.room.open) state = "closed";
    if (state === "closed") this.#end();
    this.#state.dataset.state = state;
    this.#state.hidden = state === "live";
    if (state === "live") this.#state.replaceChildren();
    else if (state === "guest") this.#state.replaceChildren(el("button", { type: "button", class: "quiet small", t: "room.guest", onclick: () => loggedIn() }));
    else this.#state.replaceChildren(el("span", { class: "spinner", "aria-hidden": "true" }), el("span", { t: "socket." + state }),
      state === "closed" ? el("a", { class: "button small", href: "#/", t: "room.back" }) : "");
  }

  take(frame) {
    const { t: type, d } = frame;
    this.#frames[type]?.(d ?? {});
    this.#stage.refresh();
  }

  #frames = {
    hello: (d) => this.#count(d.online),
    online: (d) => this.#count(d.count),
    barrage: (d) => {
      const own = this.#own(d.uid);
      this.#heard(d);
      this.#lanes.add(d.text, own);
      this.#chat.say(d.name, d.text, own);
    },
    like: (d) => {
      if (d.count <= this.#likeCount) return;
      this.#bursts.like(d.count - this.#likeCount);
      this.#setLikes(d.count);
      this.#backdrop.cheer(0.1);
    },
    gift: (d) => {
      this.#heard({ uid: d.from, name: d.name });
      const to = this.#name(d.to);
      this.#bursts.gift(d.fen);
      this.#backdrop.cheer(0.5);
      banner(this.#banners, d, to);
      this.#chat.note(["chat.gift", { name: d.name, to, gift: giftTitle(d.gift, d.title), n: d.count ?? 1 }], "gold");
    },
    pk: (d) => this.#showPK(d),
    rain: (d) => {
      this.#rain.show(d);
      this.#chat.note(["chat.rain", { sum: yuan(d.total), n: d.count }], "gold");
    },
    left: (d) => this.#shelf.take(d.items) || this.#changed(),
    packet: (d) => this.#chat.note(["chat.packet", { name: d.name, sum: yuan(d.fen) }], "gold"),
    stock: (d) => {
      if (!this.#shelf.update(d)) return;
      const title = this.#shelf.product(d.sku)?.title ?? d.sku;
      if (d.left === 0) {
        this.#backdrop.cheer(1);
        this.#chat.note(["chat.out", { title }], "red");
      }
    },
    order: (d) => {
      this.#checkout.update(d);
      if (d.state !== "pending") toast("order.news." + d.state, d.state === "paid" ? "good" : "");
    },
    balance: (d) => session.setBalance(d.fen),
    room: (d) => d.state === "closed" && this.#close(),
    system: (d) => this.#chat.note(["chat.system", { text: d.text }]),
  };

  #close() {
    this.#room.room.open = false;
    this.connection("closed");
    this.#role();
  }

  // end takes away what an open room alone has.
  #end() {
    this.node.classList.add("ended");
    this.#air.classList.remove("live");
    say(this.#air, "room.ended");
    this.#shelf.end();
    this.#rain.end();
  }

  // role shows what is for the host, or what is for everybody else: hosts neither buy in
  // their own room nor follow themselves.
  #role() {
    const mine = this.#own(this.#room.host.uid);
    this.node.classList.toggle("mine", mine);
    this.#desk.show(mine);
    this.#gifts.node.hidden = this.#follow.node.hidden = mine;
  }

  // history shows a line of before without its fireworks.
  #history({ t: type, d }) {
    if (type === "barrage") this.#chat.say(d.name, d.text, this.#own(d.uid));
    else if (type === "gift") this.#chat.note(["chat.gift", { name: d.name, to: this.#name(d.to), gift: giftTitle(d.gift, d.title), n: d.count ?? 1 }], "gold");
  }

  #bar(speak) {
    const input = el("input", { name: "text", maxlength: 100, autocomplete: "off", hint: "say.hint", label: "say.hint" });
    return el("form", {
      class: "say",
      async onsubmit(event) {
        event.preventDefault();
        const text = input.value.trim();
        if (text === "" || !(await loggedIn())) return;
        if (speak(text)) input.value = "";
        else toast("say.away", "bad");
      },
    }, input,
    el("button", { class: "primary round", label: "say.send" }, icon("send")),
    likeButton(this.#room.room.id, () => {
      this.#bursts.like();
      this.#stage.refresh();
    }),
    shareButton(this.#room.room.id));
  }

  async #buy(items) {
    return (await loggedIn()) && this.#checkout.buy(items);
  }

  async #add(product) {
    if (await loggedIn()) await this.#cart.add(product.sku);
  }

  #hit(event) {
    if (this.#packets.hit(event.offsetX, event.offsetY)) this.#rain.grab();
  }

  #own = (uid) => String(uid) === String(session.user()?.uid);

  #heard({ uid, name }) {
    if (this.#names.size < 2_000) this.#names.set(String(uid), name);
  }

  #name = (uid) => this.#names.get(String(uid)) ?? "#" + uid;

  // A duel names the two in it; a name that the server did not have may be known here.
  #challenger = (uid) => this.#names.get(String(uid)) ?? t("pk.challenger");

  #targets() {
    const { host, pk } = this.#room;
    const all = [host];
    if (pk?.b) all.push({ uid: pk.b, name: this.#challenger(pk.b) });
    return all;
  }

  #showPK(pk) {
    this.#room.pk = pk;
    if (pk?.a_name) this.#names.set(String(pk.a), pk.a_name);
    if (pk?.b_name) this.#names.set(String(pk.b), pk.b_name);
    this.#pk.show(pk);
    this.#gifts.update();
  }

  #count(n) {
    this.#online.textContent = count(n);
    this.#backdrop.online = n;
  }

  #setLikes(n) {
    this.#likeCount = Number(n ?? 0);
    this.#likes.textContent = count(this.#likeCount);
  }
}

function pair(name, key, figure) {
  const label = el("span", { class: "sr" });
  say(label, key);
  return el("span", { class: "figure-pair " + key }, icon(name), label, figure);
}
