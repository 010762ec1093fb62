// Builds elements. Strings become text nodes and nothing here parses HTML, so what
// users wrote stays text.
import { say } from "./i18n.js";

const svgSpace = "http://www.w3.org/2000/svg";

// el("button", {class: "buy", t: "buy", onclick: f}, child…)
//   t      the key of its text, or [key, vars]
//   label  the key of its aria-label, or [key, vars]
//   hint   the key of its placeholder
//   on…    a listener
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(svgSpace, tag), attributes, children);
}

const spoken = { t: "", label: "aria-label", hint: "placeholder" };

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name in spoken) {
      const [key, vars] = [value].flat();
      say(node, key, vars, spoken[name]);
    } else if (name.startsWith("on")) {
      node.addEventListener(name.slice(2), value);
    } else {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// A button with an icon and, unless it is narrow, a text. What it is called is said
// either way.
export function iconButton(icon, key, attributes = {}) {
  return el("button", { type: "button", label: key, ...attributes }, icon, el("span", { class: "text", t: key, "aria-hidden": "true" }));
}

// busy runs work while the button is disabled and says so; a second click meanwhile
// does nothing. The focus, which a disabled button loses, comes back.
export async function busy(button, work) {
  if (button.disabled) return undefined;
  const focused = document.activeElement === button;
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    return await work();
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
    if (focused && document.activeElement === document.body) button.focus();
  }
}
