// Builds the elements of a text that the server has read from Markdown. Texts become text nodes.

import { element } from "../core/dom.js";

const PLAIN = new Set(["p", "ul", "ol", "li", "em", "strong", "code", "blockquote", "h2", "h3", "h4"]);

/**
 * Returns the nodes of trees. A tree is a text, or a list of an element's name, its attributes, and its children.
 * @param {(string | any[])[]} trees
 * @returns {(Node | string)[]}
 */
export function nodes(trees) {
  return trees.map((tree) => (typeof tree === "string" ? tree : built(tree)));
}

function built([name, attributes, ...trees]) {
  const children = nodes(trees);
  if (PLAIN.has(name)) return element(name, {}, ...children);
  // A block that is wider than the screen scrolls by itself, so it can be reached with the keyboard.
  if (name === "pre") return element("pre", { class: attributes.class, tabindex: 0, role: "group", "aria-label": label(attributes.class) }, ...children);
  if (name === "img") {
    const picture = element("img", { src: attributes.src, alt: attributes.alt });
    return element("span", { class: "picture", tabindex: 0, role: "group", "aria-label": "Picture" }, picture);
  }
  if (name === "a") return link(attributes.href, children);
  throw new Error(`There is no element ${name}.`);
}

/** Returns a link to a view of this page, or to another site in a tab of its own. */
function link(address, children) {
  if (address.startsWith("#")) return element("a", { href: address }, ...children);
  if (!address.startsWith("https://")) throw new Error(`There is no link to ${address}.`);
  return element("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, ...children);
}

function label(language) {
  return { python: "Python", console: "Command line", text: "Text" }[language] ?? "Code";
}
