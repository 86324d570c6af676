// Shows a tree that reads downwards: each text stands once, and what parts from it is set in where it parts.

import { element } from "../core/dom.js";

// Siblings beyond these are folded away.
const SHOWN = 4;

/**
 * What is shown: a head, and the pieces of a text, each with the branches that part after it.
 * @typedef {{head: Node | null, pieces: {content: Node[], branches: Outline[]}[], className?: string}} Outline
 */

/** Returns the list item of an outline. */
export function outlineItem({ head, pieces, className = "" }) {
  const item = element("li", { class: `branch ${className}` }, head);
  for (const { content, branches } of pieces) {
    if (content.length > 0) item.append(element("div", { class: "piece" }, ...content));
    if (branches.length > 0) item.append(siblings(branches));
  }
  return item;
}

/** Returns outlines below each other; many siblings are folded. */
export function siblings(branches) {
  const list = element("ul", { class: "branches" }, ...branches.slice(0, SHOWN).map(outlineItem));
  const more = branches.slice(SHOWN);
  if (more.length > 0) list.append(element("li", { class: "more" }, folded(`${more.length} more`, () => siblingList(more))));
  return list;
}

function siblingList(branches) {
  return element("ul", { class: "branches flat" }, ...branches.map(outlineItem));
}

/** Returns details whose content is made when they are opened for the first time. */
export function folded(title, make, attributes = {}) {
  const details = element("details", attributes, element("summary", { text: title }));
  const fill = () => {
    if (details.open && details.childElementCount === 1) details.append(make());
  };
  details.addEventListener("toggle", fill);
  return details;
}
