// What is new for the visitor: messages in the rooms they know, posts of the hosts they
// follow, and, as a red dot, that a room has opened.
import { call, explain, get } from "./api.js";
import { el, iconButton } from "./dom.js";
import { openDialog } from "./dialog.js";
import { count } from "./format.js";
import { language, say } from "./i18n.js";
import { icon } from "./icons.js";
import * as session from "./session.js";

const refresh = 15_000; // ms between looks

// messagesButton returns the bell, which looks by itself.
export function messagesButton() {
  const dot = el("span", { class: "dot", hidden: true });
  const bell = iconButton(icon("bell"), "unread.title", { class: "plain", onclick: () => open(news) });
  bell.append(dot);
  let news = {};

  async function look() {
    if (!session.user() || document.hidden) return;
    try {
      news = await get("/unread");
      delete news.rooms?.[location.hash.match(/^#\/rooms\/(\d+)$/)?.[1]]; // this is being read
    } catch {
      return; // the next look tells
    }
    const all = Object.values(news.rooms ?? {}).reduce((sum, n) => sum + n, news.feed ?? 0);
    dot.hidden = all === 0;
    dot.textContent = count(all);
    say(bell, "unread.label", { n: all }, "aria-label");
    light();
  }

  // The red dot of rooms that opened goes out where they are listed.
  function light() {
    const live = news.dots?.live, listed = !location.hash.startsWith("#/rooms/");
    document.querySelector(".brand").classList.toggle("lit", Boolean(live?.lit) && !listed);
    if (!live?.lit || !listed) return;
    live.lit = false;
    call("POST", "/unread/seen", { area: "live", at: live.newest }).catch(() => {});
  }

  addEventListener("hashchange", light);
  session.changes.addEventListener("login", look);
  look();
  setInterval(look, refresh);
  return bell;
}

async function open(news) {
  const rooms = el("ul", { class: "lines" }), posts = el("ul", { class: "posts" });
  const state = el("p", { class: "muted pad", role: "status", t: "loading" });
  const dialog = openDialog("unread.title", {}, rooms, posts, state);
  try {
    const unread = Object.entries(news.rooms ?? {}).filter(([, n]) => n > 0);
    const [list, feed] = await Promise.all([unread.length > 0 ? get("/rooms") : { rooms: [] }, get("/feed")]);
    const titles = new Map(list.rooms.map(({ id, title }) => [String(id), title]));
    rooms.append(...unread.map(([id, n]) => el("li", { class: "line" },
      el("a", { class: "grow", href: "#/rooms/" + id, onclick: () => dialog.close() }, titles.get(id) ?? "#" + id),
      el("span", { class: "dot" }, count(n)))));
    posts.append(...feed.posts.map((post) => el("li", {},
      el("p", {}, el("strong", {}, post.name), " ", el("span", { class: "hint" }, new Date(post.created).toLocaleString(language()))),
      el("p", {}, post.text))));
    if (unread.length + feed.posts.length === 0) say(state, "unread.none");
    else state.remove();
  } catch (err) {
    state.textContent = explain(err);
  }
}
