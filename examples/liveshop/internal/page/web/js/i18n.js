// Texts in two languages, switched in place.
//
// say() remembers which text a node shows, so that a switch changes what is on the
// page and loses nothing: no reload, no lost socket.
import en from "./en.js";
import zh from "./zh.js";

const texts = { en, zh };
const remembered = "liveshop:lang";
const said = new WeakMap(); // node → {attribute: [key, vars]}; "" is its text

let lang = localStorage.getItem(remembered);
if (!(lang in texts)) lang = navigator.language.startsWith("zh") ? "zh" : "en";

export const language = () => lang;

// t returns the text of key with each {name} replaced from vars.
export function t(key, vars = {}) {
  const text = texts[lang][key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => String(vars[name] ?? ""));
}

export const has = (key) => key in texts[lang];

// say shows a text as the node's content, or as one of its attributes.
export function say(node, key, vars, attribute = "") {
  const parts = said.get(node) ?? {};
  parts[attribute] = [key, vars];
  said.set(node, parts);
  node.setAttribute("data-said", "");
  show(node, attribute, key, vars);
}

function show(node, attribute, key, vars) {
  const text = t(key, vars);
  if (attribute) node.setAttribute(attribute, text);
  else if (node.textContent !== text) node.textContent = text; // clocks say the same often
}

// adopt takes over the texts that index.html names.
export function adopt(root) {
  for (const node of root.querySelectorAll("[data-say]")) say(node, node.dataset.say);
  for (const node of root.querySelectorAll("[data-say-label]")) say(node, node.dataset.sayLabel, {}, "aria-label");
  document.documentElement.lang = lang;
}

export function toggleLanguage() {
  lang = lang === "en" ? "zh" : "en";
  localStorage.setItem(remembered, lang);
  document.documentElement.lang = lang;
  for (const node of document.querySelectorAll("[data-said]")) {
    for (const [attribute, [key, vars]] of Object.entries(said.get(node) ?? {})) show(node, attribute, key, vars);
  }
  dispatchEvent(new Event("language"));
}
