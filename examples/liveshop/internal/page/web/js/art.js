// Pictures without files: every room and product gets one of its own from its name.
import { svg } from "./dom.js";
import { hue } from "./format.js";

// cover is a room's picture.
export function cover(seed) {
  const h = hue(seed), id = `cover-${h}-${String(seed).replace(/\W/g, "")}`;
  const rays = Array.from({ length: 9 }, (_, i) => {
    const a = ((i * 40 + (h % 40)) * Math.PI) / 180, b = a + 0.26;
    const at = (angle) => `${(160 + Math.cos(angle) * 300).toFixed(0)} ${(86 + Math.sin(angle) * 300).toFixed(0)}`;
    return `M160 86L${at(a)}L${at(b)}z`;
  }).join("");
  return svg("svg", { class: "cover", viewBox: "0 0 320 180", preserveAspectRatio: "xMidYMid slice", "aria-hidden": "true" },
    svg("defs", {},
      svg("linearGradient", { id, x1: 0, y1: 0, x2: 1, y2: 1 },
        svg("stop", { offset: 0, "stop-color": `hsl(${h} 58% 38%)` }),
        svg("stop", { offset: 1, "stop-color": `hsl(${h + 60} 60% 18%)` }))),
    svg("rect", { width: 320, height: 180, fill: `url(#${id})` }),
    svg("path", { d: rays, fill: `hsl(${h + 20} 90% 75% / 0.13)` }),
    svg("circle", { cx: 160, cy: 92, r: 58, fill: `hsl(${h + 14} 66% 60%)` }),
    host(h));
}

function host(h) {
  const hair = `hsl(${h + 200} 42% 13%)`;
  const styles = ["M139 84c-2-34 44-34 42 0-10-3-14-9-16-14-6 8-14 12-26 14z", "M138 96c-6-46 50-46 44 0-2-10-5-18-9-22-9 5-21 6-29 2-3 5-5 12-6 20z", "M140 80c2-30 38-28 40 0-4-6-8-9-20-9s-16 3-20 9z"];
  return svg("g", {},
    svg("path", { d: "M108 180c0-42 22-56 52-56s52 14 52 56z", fill: `hsl(${h + 190} 48% 22%)` }),
    svg("rect", { x: 151, y: 100, width: 18, height: 30, fill: "#eab98f" }),
    svg("ellipse", { cx: 160, cy: 88, rx: 21, ry: 25, fill: "#f4c9a8" }),
    svg("path", { d: styles[h % styles.length], fill: hair }),
    svg("path", { d: "M137 90a23 25 0 0 1 46 0", fill: "none", stroke: "#ffc857", "stroke-width": 4 }),
    svg("rect", { x: 133, y: 84, width: 9, height: 17, rx: 4, fill: "#ffc857" }),
    svg("rect", { x: 178, y: 84, width: 9, height: 17, rx: 4, fill: "#ffc857" }));
}

const goods = {
  headphones: "M22 40V30a10 10 0 0 1 20 0v10M20 38h6v10h-6zM38 38h6v10h-6z",
  cup: "M20 24h20v14a10 10 0 0 1-20 0zM40 27h3a5 5 0 0 1 0 10h-3M26 19v-3M32 19v-4",
  phone: "M25 16h14v32H25zM30 44h4",
  watch: "M32 18a14 14 0 1 0 0 28 14 14 0 0 0 0-28zM32 25v8l5 3M27 18l1-4h8l1 4M27 46l1 4h8l1-4",
  bag: "M18 28h28l-3 20H21zM25 28v-4a7 7 0 0 1 14 0v4",
  shoe: "M16 40c6 0 9-6 10-12l6 2c2 6 6 8 15 9 3 1 3 7 0 7H16z",
  lamp: "M22 30l4-14h12l4 14zM32 30v16M24 48h16",
  mic: "M32 16a5 5 0 0 1 5 5v10a5 5 0 0 1-10 0V21a5 5 0 0 1 5-5zM22 30a10 10 0 0 0 20 0M32 40v8M26 48h12",
  pot: "M22 28h18c4 6 3 14-2 18H24c-5-4-6-12-2-18zM22 32c-5-1-7 2-6 5s4 3 6 3M41 34l6-5M28 28c0-3 6-3 6 0M31 25v-2",
  leaf: "M20 46c0-18 10-26 27-28 0 17-7 27-21 27M20 48c4-8 9-14 16-19",
  poster: "M21 16h22v32H21zM21 40l7-8 6 6 4-4 5 6M28 24h.01",
  box: "M18 26l14-7 14 7v14l-14 7-14-7zM18 26l14 7 14-7M32 33v14",
};

// pictures are the names of the drawings.
export const pictures = Object.keys(goods);

// product is the picture of something on the shelf; its image is the name of a drawing.
export function product({ sku, image }) {
  const h = hue(sku);
  return svg("svg", { class: "ware", viewBox: "0 0 64 64", "aria-hidden": "true" },
    svg("rect", { width: 64, height: 64, rx: 14, fill: `hsl(${h} 42% 24%)` }),
    svg("circle", { cx: 32, cy: 33, r: 23, fill: `hsl(${h} 60% 36%)` }),
    svg("path", { d: Object.hasOwn(goods, image ?? "") ? goods[image] : goods.box, fill: "none", stroke: `hsl(${h + 30} 95% 88%)`, "stroke-width": 2.6, "stroke-linecap": "round", "stroke-linejoin": "round" }));
}
