// Small line charts in SVG: the last two minutes of some series.
import { el, svg } from "./dom.js";

const width = 320, height = 84;
const points = 120; // one a second
export const colours = ["#37d6b5", "#ffc857", "#a79bff", "#59b8ff", "#ff8a5c", "#f58bd1"];

export class Chart {
  #series = new Map(); // name → {values, line, legend, last}
  #title;
  #unit;
  #top;
  #options;
  #plot = svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    [0.25, 0.5, 0.75].map((part) => svg("line", { class: "rule", x1: 0, x2: width, y1: part * height, y2: part * height })));
  #legend = el("ul", { class: "legend" });
  #most = el("span", { class: "muted figure" });

  // unit(value) is how a value is written. options.top holds the scale's upper end;
  // without it the scale follows the values. options.stacked piles the series up.
  // options.present drops series that are not there any more, without waiting for the
  // end of their line.
  constructor(title, unit, options = {}) {
    this.#title = title;
    this.#unit = unit;
    this.#options = options;
    this.node = el("figure", { class: "chart" },
      el("figcaption", {}, el("span", { t: title }), this.#most), this.#plot, this.#legend);
  }

  // push adds one moment: entries are {name, value, colour, text, dash, shown}. A value
  // of null is a gap: nothing was measured. text is a string, or [key]; without it the
  // series is not in the legend. shown is written there instead of the value.
  push(entries) {
    const seen = new Set(entries.map(({ name }) => name));
    // First, so that their colours are free for those that come.
    if (this.#options.present) for (const name of this.#series.keys()) seen.has(name) || this.#drop(name);
    for (const entry of entries) {
      const s = this.#get(entry);
      s.next = entry.value;
      if (typeof entry.text === "string") s.text.textContent = entry.text;
      s.last.textContent = entry.shown ?? (entry.value === null ? "–" : this.#unit(entry.value));
    }
    for (const [name, s] of this.#series) {
      s.values.push(seen.has(name) ? s.next : null);
      if (s.values.length > points) s.values.shift();
      if (s.values.every((v) => v === null)) this.#drop(name);
    }
    this.#draw();
  }

  #get({ name, colour, text, dash }) {
    let s = this.#series.get(name);
    if (!s) {
      const used = new Set([...this.#series.values()].map((other) => other.colour));
      colour ??= colours.find((free) => !used.has(free)) ?? colours[0];
      s = { colour, values: [], line: svg(this.#options.stacked ? "polygon" : "path", { class: "line", stroke: colour, fill: this.#options.stacked ? colour : "none", "stroke-dasharray": dash }), last: el("span", { class: "figure" }) };
      const swatch = svg("svg", { class: "swatch", viewBox: "0 0 16 8", "aria-hidden": "true" }, svg("line", { x1: 0, x2: 16, y1: 4, y2: 4, stroke: colour, "stroke-width": 3, "stroke-dasharray": dash }));
      s.text = typeof text === "string" ? el("span", { class: "legend-name" }) : el("span", { t: text ?? "" });
      s.legend = el("li", {}, swatch, s.text, s.last);
      this.#series.set(name, s);
      this.#plot.append(s.line);
      if (text !== undefined) this.#legend.append(s.legend);
    }
    return s;
  }

  #drop(name) {
    const s = this.#series.get(name);
    s.line.remove();
    s.legend.remove();
    this.#series.delete(name);
  }

  #draw() {
    const all = [...this.#series.values()];
    const length = Math.max(0, ...all.map((s) => s.values.length));
    const tops = this.#options.stacked
      ? Array.from({ length }, (_, i) => all.reduce((sum, s) => sum + (at(s, i, length) ?? 0), 0))
      : all.flatMap((s) => s.values);
    this.#top = this.#options.top ?? round(Math.max(this.#options.least ?? 1, ...tops));
    const x = (i) => ((points - length + i) / (points - 1)) * width;
    const y = (v) => 2 + (height - 4) * (1 - Math.min(1, v / this.#top));

    const base = new Array(length).fill(0);
    for (const s of all) {
      if (this.#options.stacked) {
        const lower = base.map((v, i) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`).reverse();
        for (let i = 0; i < length; i++) base[i] += at(s, i, length) ?? 0;
        const upper = base.map((v, i) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`);
        s.line.setAttribute("points", [...upper, ...lower].join(" "));
      } else {
        let d = "", pen = "M";
        for (let i = 0; i < length; i++) {
          const v = at(s, i, length);
          if (v === null) pen = "M";
          else {
            d += `${pen}${x(i).toFixed(1)} ${y(v).toFixed(1)}`;
            pen = "L";
          }
        }
        s.line.setAttribute("d", d);
      }
    }
    this.#most.textContent = this.#unit(this.#top);
  }
}

// at is the value at place i of the longest series: shorter ones began later.
function at(s, i, length) {
  const n = i - (length - s.values.length);
  return n < 0 ? null : s.values[n];
}

// round is the next of 1, 2, 5 times a power of ten.
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

