// All rooms, as cards: loading, none, an error, a page, more pages.
import { explain, get } from "./api.js";
import { cover } from "./art.js";
import { busy, el } from "./dom.js";
import { count, initial } from "./format.js";
import { icon } from "./icons.js";
import { ownRoomButton } from "./openroom.js";

const refresh = 5_000; // ms; the list itself is rebuilt once a second
const kinds = ["", "normal", "pk"];

// openLobby shows the rooms in main and returns what ends it.
export function openLobby(main) {
  const leaving = new AbortController();
  const grid = el("ul", { class: "cards" });
  const state = el("div", { class: "state", role: "status" });
  const more = el("button", { type: "button", class: "quiet more", hidden: true, t: "lobby.more", onclick: () => busy(more, next) });
  const own = ownRoomButton();
  let kind = "", page = "", pages = 1;

  const chips = kinds.map((value) => el("button", {
    type: "button", class: "chip", "aria-pressed": String(value === kind), t: "lobby.kind." + (value || "all"),
    onclick() {
      kind = value;
      for (const chip of chips) chip.setAttribute("aria-pressed", String(chip === this));
      load(true);
    },
  }));

  main.replaceChildren(el("section", { class: "lobby" },
    el("header", { class: "lobby-head" },
      el("div", {}, el("h1", { tabindex: "-1", t: "lobby.title" }), el("p", { class: "lead", t: "lobby.lead" })),
      el("div", { class: "lobby-tools" }, el("div", { class: "chips", role: "group", label: "lobby.kinds" }, chips), own.node)),
    state, grid, more));

  const list = (from) => get(`/rooms?kind=${kind}&page=${encodeURIComponent(from)}`, { signal: leaving.signal });

  async function load(first) {
    const wanted = kind;
    if (first) skeleton();
    try {
      const answer = await list("");
      if (kind !== wanted || leaving.signal.aborted) return;
      if (pages > 1 && !first) return updateCards(answer.rooms);
      pages = 1;
      show(answer);
    } catch (err) {
      if (!leaving.signal.aborted && kind === wanted && (first || grid.childElementCount === 0)) problem(err);
    }
  }

  async function next() {
    try {
      const answer = await list(page);
      pages++;
      append(answer);
    } catch (err) {
      if (!leaving.signal.aborted) problem(err);
    }
  }

  function show(answer) {
    // A card that stays keeps its node, and with it the focus.
    const old = new Map([...grid.children].map((item) => [item.dataset.room, item]));
    const items = answer.rooms.map((room) => {
      const item = old.get(String(room.id));
      if (!item) return card(room);
      item.update(room);
      return item;
    });
    if (items.length !== grid.childElementCount || items.some((item, i) => grid.children[i] !== item)) grid.replaceChildren(...items);
    finish(answer);
  }

  function append(answer) {
    const there = new Set([...grid.children].map((item) => item.dataset.room));
    grid.append(...answer.rooms.filter((room) => !there.has(String(room.id))).map(card));
    finish(answer);
  }

  function updateCards(rooms) {
    for (const room of rooms) grid.querySelector(`[data-room="${CSS.escape(room.id)}"]`)?.update(room);
  }

  function finish(answer) {
    page = String(answer.next ?? "");
    more.hidden = !answer.next;
    grid.removeAttribute("aria-busy");
    state.replaceChildren();
    if (grid.childElementCount === 0) {
      state.replaceChildren(el("div", { class: "notice" }, icon("eye"), el("h2", { t: "lobby.empty" }), el("p", { t: "lobby.empty.hint" })));
    }
  }

  function skeleton() {
    more.hidden = true;
    grid.setAttribute("aria-busy", "true");
    state.replaceChildren(el("p", { class: "sr", t: "loading" }));
    grid.replaceChildren(...Array.from({ length: 6 }, () => el("li", { class: "card skeleton", "aria-hidden": "true" }, el("div", { class: "picture" }), el("div", { class: "bone" }), el("div", { class: "bone short" }))));
  }

  function problem(err) {
    grid.removeAttribute("aria-busy");
    grid.replaceChildren();
    more.hidden = true;
    state.replaceChildren(el("div", { class: "notice bad" }, icon("alert"), el("h2", { t: "lobby.error" }), el("p", {}, explain(err)),
      err.trace && el("p", { class: "hint mono" }, "trace " + err.trace),
      el("button", { type: "button", class: "primary", t: "retry", onclick: () => load(true) })));
  }

  load(true);
  const timer = setInterval(() => document.hidden || load(false), refresh);
  return () => {
    clearInterval(timer);
    leaving.abort();
    own.close();
  };
}

function card(room) {
  const online = el("span"), likes = el("span"), title = el("h2");
  const item = el("li", { class: "card", "data-room": room.id },
    el("a", { href: "#/rooms/" + room.id },
      el("div", { class: "picture" }, cover(room.id),
        el("div", { class: "badges" },
          el("span", { class: "badge live", t: "live" }),
          room.star && el("span", { class: "badge star" }, icon("star"), el("span", { t: "star" })),
          room.kind === "pk" && el("span", { class: "badge pk" }, "PK")),
        el("div", { class: "figures" },
          el("span", { class: "figure-pair" }, icon("people"), el("span", { class: "sr", t: "online" }), online),
          el("span", { class: "figure-pair" }, icon("heart"), el("span", { class: "sr", t: "likes" }), likes))),
      el("div", { class: "card-foot" },
        el("span", { class: "avatar", "aria-hidden": "true" }, initial(room.host_name)),
        el("div", {}, title, el("p", { class: "muted" }, room.host_name)))));
  item.update = (now) => {
    title.textContent = now.title;
    online.textContent = count(now.online);
    likes.textContent = count(now.likes);
  };
  item.update(room);
  return item;
}
