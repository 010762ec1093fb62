// The charts of the control room, fed from /admin/stats.
import { Chart, colours } from "./charts.js";
import { el } from "./dom.js";
import { count } from "./format.js";
import { Rates } from "./rates.js";

const classes = [["2", "#37d6b5", "chart.ok"], ["3", "#59b8ff", "chart.moved"], ["4", "#ffc857", "chart.refused"], ["429", "#ff8a5c", "chart.limited"], ["5", "#ff5d6c", "chart.failed"]];

const ms = (v) => (v < 10 ? v.toFixed(1) : Math.round(v).toLocaleString("en"));
const second = (v) => (v < 10 ? v.toFixed(1).replace(/\.0$/, "") : count(Math.round(v))) + "/s";
const percent = (v) => Math.round(v) + " %";

export class Figures {
  #rates = new Rates();
  #charts = {
    status: new Chart("chart.status", second, { stacked: true }),
    servers: new Chart("chart.servers", second),
    latency: new Chart("chart.latency", (v) => ms(v) + " ms"),
    stock: new Chart("chart.stock", count, { present: true }),
    cache: new Chart("chart.cache", percent, { top: 100 }),
    denied: new Chart("chart.denied", second),
  };

  node = el("div", { class: "charts" }, Object.values(this.#charts).map((chart) => chart.node));

  // show takes the figures of this moment; of the stock that of a room, if one is looked
  // at, and titles are what its wares are called, by SKU.
  show(stats, room, titles) {
    const at = performance.now();
    const servers = stats.servers ?? [];
    this.#requests(servers, at);
    this.#charts.latency.push(servers.flatMap(({ id, up, p50_ms: p50, p99_ms: p99 }, i) => [
      { name: id + " p99", text: id, colour: colours[i % colours.length], value: up ? p99 : null, shown: up ? `${ms(p50)} – ${ms(p99)}` : "–" },
      { name: id + " p50", colour: colours[i % colours.length], value: up ? p50 : null, dash: "3 3" },
    ]));
    // The six with the most units to sell are what a chart can show.
    const stock = (stats.stock ?? []).filter((item) => !room || item.room === room).toSorted((a, b) => b.left + b.reserved + b.sold - (a.left + a.reserved + a.sold)).slice(0, 6);
    this.#charts.stock.push(stock.map(({ room: at, sku, left }) => ({ name: at + "/" + sku, text: titles.get(sku) ?? sku, value: left })));
    const hits = this.#rates.per("hits", stats.cache?.hits ?? 0, at), misses = this.#rates.per("misses", stats.cache?.misses ?? 0, at);
    this.#charts.cache.push([{ name: "hits", text: ["chart.hits"], colour: colours[0], value: hits + misses > 0 ? (100 * hits) / (hits + misses) : null }]);
    this.#charts.denied.push([{ name: "denied", text: ["chart.limited"], colour: "#ff8a5c", value: this.#rates.per("denied", stats.limiter?.denied ?? 0, at) }]);
  }

  #requests(servers, at) {
    const sums = new Map(classes.map(([name]) => [name, null]));
    const perServer = [];
    for (const [i, { id, up, requests }] of servers.entries()) {
      let all = null;
      for (const [status, n] of Object.entries(requests ?? {})) {
        const rate = this.#rates.per(id + " " + status, n, at);
        if (rate === null) continue;
        all = (all ?? 0) + rate;
        const kind = status === "429" ? status : status[0];
        sums.set(kind, (sums.get(kind) ?? 0) + rate);
      }
      perServer.push({ name: id, text: id, colour: colours[i % colours.length], value: up ? all : null });
    }
    this.#charts.servers.push(perServer);
    this.#charts.status.push(classes.filter(([name]) => sums.get(name) !== null).map(([name, colour, text]) => ({ name, text: [text], colour, value: sums.get(name) })));
  }
}
