// Shows the heads of one layer: how each divides its attention among the tokens of a text.

import { element } from "../core/dom.js";
import { percent } from "../core/figures.js";
import { topPlaces } from "../core/layer_views.js";
import { label } from "../core/spelling.js";

const SHOWN = 3;

/**
 * Returns a table with a row for each head. A choice of a head dispatches "head" with its index, from the table.
 * @param {Float32Array[]} shares
 * @param {{ids: number[], pieces: Map<number, object>, chosen: number | null}} shown
 */
export function headTable(shares, { ids, pieces, chosen }) {
  const rows = shares.map((head, index) => {
    const input = element("input", { type: "radio", name: "head", value: String(index), checked: index === chosen });
    const name = element("label", { class: "choice" }, input, `Head ${index + 1}`);
    const most = topPlaces(head, SHOWN).map((place) => named(ids[place], head[place], pieces));
    return element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, strip(head)), element("td", {}, ...most));
  });
  const head = element(
    "tr",
    {},
    element("th", { scope: "col", text: "head" }),
    element("th", { scope: "col", text: "from the first token to this one" }),
    element("th", { scope: "col", text: "gives most to" }),
  );
  const table = element("table", { class: "heads small" }, element("thead", {}, head), element("tbody", {}, ...rows));
  table.addEventListener("change", ({ target }) => {
    table.dispatchEvent(new CustomEvent("head", { bubbles: true, detail: { head: Number(target.value) } }));
  });
  // The form keeps the group of radio buttons apart from others.
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Heads" }, element("form", {}, table));
}

function named(token, share, pieces) {
  return element("span", { class: "named" }, element("bdi", { class: "token-label", text: label(token, pieces) }), element("span", { class: "number", text: ` ${percent(share)} ` }));
}

/** Returns a band with a field for each token, whose colour is the stronger the larger its share. */
function strip(head) {
  const band = element("span", { class: "strip" });
  const stops = [...head].map((share, i) => `${shade(share)} ${at(i, head.length)} ${at(i + 1, head.length)}`);
  band.style.setProperty("background", `linear-gradient(to right, ${stops.join(", ")})`);
  return band;
}

function at(place, count) {
  return `${((100 * place) / count).toFixed(3)}%`;
}

/** Returns the colour of a share. It grows with the root, so that small shares can be seen. */
export function shade(share, most = 100) {
  return `color-mix(in srgb, var(--accent) ${(most * Math.sqrt(share)).toFixed(1)}%, var(--raised))`;
}
