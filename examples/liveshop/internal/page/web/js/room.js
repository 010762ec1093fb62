// One room: loads it, opens its socket, and hands what comes in to its parts.
import { ApiError, explain, get } from "./api.js";
import { el } from "./dom.js";
import { icon } from "./icons.js";
import { loggedIn } from "./login.js";
import { RoomView } from "./roomview.js";
import { RoomSocket } from "./socket.js";
import * as session from "./session.js";

const siteName = document.title;

const figures = 2_500; // ms between looks at how much is left, where no socket tells
const calm = 4;        // times that, when nothing is
const spread = 1_000;  // ms over which the pages of a room look at a shelf that changed

// openRoom shows a room in main and returns what leaves it.
export function openRoom(main, id) {
  const leaving = new AbortController();
  let view = null, socket = null, open = true, live = false, due = 0;

  const fetchRoom = () => get("/rooms/" + id, { signal: leaving.signal });

  async function load() {
    main.replaceChildren(skeleton());
    try {
      enter(await fetchRoom());
    } catch (err) {
      if (!leaving.signal.aborted) problem(err);
    }
  }

  function enter(room) {
    // A part that could not be read in time is null; the room is more than its parts.
    room.host ??= { uid: room.room.host, name: "" };
    open = room.room.open;
    session.setBalance(room.balance);
    view = new RoomView(room, { speak: (text) => socket?.send("barrage", { d: { text } }) ?? false, changed: lookSoon });
    main.replaceChildren(view.node);
    document.title = `${room.room.title} · ${siteName}`;
    view.focus();
    connect();
    if (session.user()) view.restore();
  }

  function connect() {
    socket?.close();
    socket = null;
    live = false;
    if (!open) {
      view.connection("closed");
      return;
    }
    if (!session.user()) {
      view.connection("guest");
      return;
    }
    socket = new RoomSocket(id, {
      state(state) {
        live = state === "live";
        view.connection(state);
      },
      frame: (frame) => view.take(frame),
      // What was missed and cannot be resumed is in the room as it is now.
      gap: () => fetchRoom().then((room) => view.refresh(room)).catch(() => {}),
    });
  }

  function problem(err) {
    const stranger = err instanceof ApiError && err.status === 401;
    main.replaceChildren(el("div", { class: "notice " + (stranger ? "" : "bad") }, icon(stranger ? "user" : "alert"),
      el("h1", { tabindex: "-1", t: stranger ? "room.login" : err.status === 404 ? "room.none" : "room.error" }),
      stranger ? el("p", { t: "room.login.hint" }) : el("p", {}, explain(err)),
      el("div", { class: "row center" },
        stranger
          ? el("button", { type: "button", class: "primary", t: "login.title", onclick: () => loggedIn() })
          : el("button", { type: "button", class: "primary", t: "retry", onclick: load }),
        el("a", { class: "button quiet", href: "#/", t: "room.back" }))));
  }

  // Another visitor now: the room with their cart, their orders and their socket.
  function changed() {
    if (!view) load();
    else {
      connect();
      if (session.user()) {
        view.restore();
        fetchRoom().then((room) => view.refresh(room)).catch(() => {}); // now as one of theirs: what is unread counts from here
      } else {
        view.forget();
      }
    }
  }

  async function look() {
    const { products } = await get(`/rooms/${id}/products`, { signal: leaving.signal }).catch(() => ({}));
    if (products && !leaving.signal.aborted) view.stock(products);
  }

  // The frame that says that the shelf changed comes to all pages at once.
  function lookSoon() {
    due ||= setTimeout(() => {
      due = 0;
      look();
    }, Math.random() * spread);
  }

  // How much is left comes over the socket. Who has none, a guest or somebody who is
  // reconnecting, asks; with nothing left there is nothing to move, but the host may bring
  // something new.
  let ticks = 0;
  const counting = setInterval(() => {
    if (view && !live && !document.hidden && (view.selling || ++ticks % calm === 0)) look();
  }, figures);

  session.changes.addEventListener("login", changed);
  session.changes.addEventListener("logout", changed);
  load();

  return () => {
    session.changes.removeEventListener("login", changed);
    session.changes.removeEventListener("logout", changed);
    clearInterval(counting);
    clearTimeout(due);
    leaving.abort();
    socket?.close();
    view?.close();
  };
}

function skeleton() {
  return el("div", { class: "room", "aria-busy": "true" }, el("p", { class: "sr", role: "status", t: "loading" }),
    el("div", { class: "room-main" }, el("div", { class: "stage skeleton" })),
    el("div", { class: "room-side" }, el("div", { class: "panel skeleton tall" })));
}
