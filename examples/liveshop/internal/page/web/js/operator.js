// The control room: what the servers do, and what one can do to them. Only the
// loopback address may use it; elsewhere its button does not show.
import { call, get, send } from "./api.js";
import { busy, el, iconButton } from "./dom.js";
import { Figures } from "./figures.js";
import { count } from "./format.js";
import { grantDialog, productDialog } from "./hosts.js";
import { has, say } from "./i18n.js";
import { icon } from "./icons.js";
import { Lights } from "./lights.js";
import { fail, toast } from "./toast.js";

const every = 1_000; // ms between looks at the figures
const bots = 10_000;
const wide = 1_100; // px: from here on there is room for it beside the page
const remembered = "liveshop:operator";

// operatorTools returns the button that opens the control room.
export function operatorTools() {
  const drawer = document.getElementById("operator");
  const button = iconButton(icon("dial"), "op.open", { class: "plain operator-button", hidden: true, "aria-expanded": "false", "aria-controls": "operator", onclick: () => toggle(drawer.hidden) });
  const figures = new Figures();
  const servers = el("ul", { class: "servers" });
  const switches = el("div", { class: "switches" });
  const rate = el("span", { class: "figure" });
  const rows = { servers: new Map(), switches: new Map() };

  drawer.append(
    el("header", { class: "panel-head" }, el("h2", { t: "op.title" }), el("span", { class: "muted" }, rate, " ", el("span", { t: "op.orders" })),
      el("button", { type: "button", class: "plain round small", label: "close", onclick: () => toggle(false) }, icon("close"))),
    el("div", { class: "op-buttons" },
      act("bolt", "op.sale", "/admin/demo/sale", () => ({ room: currentRoom() })),
      act("bots", "op.bots", "/admin/demo/bots", () => ({ n: bots, room: currentRoom() }))),
    el("h3", { t: "op.hosts" }),
    el("div", { class: "op-buttons op-hosts" },
      el("button", { type: "button", class: "op", onclick: () => grantDialog(currentRoom()) }, icon("star"), el("span", { t: "op.grant" })),
      el("button", { type: "button", class: "op", onclick: () => productDialog(currentRoom()) }, icon("box"), el("span", { t: "op.product" }))),
    el("h3", { t: "op.servers" }), servers,
    el("h3", { t: "op.switches" }), switches,
    el("h3", { t: "op.figures" }), figures.node);

  function unfold(open) {
    drawer.hidden = !open;
    document.body.classList.toggle("has-drawer", open);
    button.setAttribute("aria-expanded", String(open));
  }

  function toggle(open) {
    unfold(open);
    localStorage.setItem(remembered, open ? "open" : "");
    (open ? drawer.querySelector("button") : button).focus({ preventScroll: true });
  }
  drawer.addEventListener("keydown", (event) => event.key === "Escape" && toggle(false));

  function show(stats) {
    rate.textContent = count(Math.round(stats.orders_per_s ?? 0));
    const there = stats.servers ?? [];
    for (const server of there) row(rows.servers, server.id, () => newServer(servers, server.id)).show(server);
    for (const [id, server] of rows.servers) if (!there.some((s) => s.id === id)) server.show({ up: false });
    for (const [name, on] of Object.entries(stats.switches ?? {})) row(rows.switches, name, () => newSwitch(switches, name)).show(on);
    figures.show(stats, currentRoom(), titles());
  }

  // Who may not look gets an answer that says so, and is not asked again.
  async function begin() {
    try {
      show(await get("/admin/stats"));
    } catch (err) {
      if (![401, 403, 404].includes(err.status)) setTimeout(begin, 5_000);
      return;
    }
    button.hidden = false;
    new Lights(document.getElementById("lights")).start();
    if (localStorage.getItem(remembered) === "open" && innerWidth >= wide) unfold(true);
    let asking = false;
    setInterval(async () => {
      if (asking || document.hidden) return;
      asking = true;
      await get("/admin/stats").then(show).catch(() => {});
      asking = false;
    }, every);
  }
  begin();
  return button;
}

// The room that is being looked at is the one that things happen to.
const currentRoom = () => Number(location.hash.match(/^#\/rooms\/(\d+)$/)?.[1] ?? 0);

// What the shelf beside calls its wares, by SKU.
const titles = () => new Map([...document.querySelectorAll(".ware-row")].map((row) => [row.dataset.sku, row.querySelector("h3").textContent]));

function row(rows, name, make) {
  if (!rows.has(name)) rows.set(name, make());
  return rows.get(name);
}

function act(symbol, key, path, body) {
  const button = el("button", {
    type: "button", class: "op",
    onclick: () => busy(button, async () => {
      try {
        const { room } = await call("POST", path, body());
        if (room) location.hash = "#/rooms/" + room;
        toast([key + ".done", { n: bots.toLocaleString("en") }], "good");
      } catch (err) {
        fail(err);
      }
    }),
  }, icon(symbol), el("span", { t: [key, { n: bots.toLocaleString("en") }] }));
  return button;
}

function newServer(list, id) {
  let up = true;
  const lamp = el("span", { class: "lamp", "aria-hidden": "true" });
  const state = el("span", { class: "muted figure grow" });
  const text = el("span");
  const button = el("button", {
    type: "button", class: "quiet small",
    onclick: () => busy(button, () => send("POST", up ? "/admin/demo/kill" : "/admin/demo/restart", up ? { server: id } : {}).catch(fail)),
  }, icon("power"), text);
  list.append(el("li", { class: "server" }, lamp, el("strong", {}, id), state, button));
  return {
    show(server) {
      up = server.up;
      lamp.dataset.ok = String(up);
      say(state, up ? "op.sockets" : "op.down", { n: count(server.sockets ?? 0) });
      say(text, up ? "op.kill" : "op.restart");
    },
  };
}

function newSwitch(box, name) {
  const input = el("input", {
    type: "checkbox", role: "switch",
    onchange: async () => {
      try {
        await send("PUT", "/admin/switch/" + encodeURIComponent(name), { on: input.checked });
      } catch (err) {
        input.checked = !input.checked;
        fail(err);
      }
    },
  });
  box.append(el("label", { class: "switch" }, input, has("switch." + name) ? el("span", { t: "switch." + name }) : el("span", {}, name)));
  return {
    show(on) {
      if (document.activeElement !== input) input.checked = on;
    },
  };
}
