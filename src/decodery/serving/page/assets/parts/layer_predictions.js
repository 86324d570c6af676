// Shows what each layer would have said: the likeliest next tokens by the states after it.

import { element } from "../core/dom.js";
import { percent } from "../core/figures.js";
import { label } from "../core/spelling.js";

/**
 * Returns a table with a row for each layer. A click on a layer dispatches "layer" with its number, from the table.
 * @param {[number, number][][]} predicted
 * @param {{pieces: Map<number, object>, layer: number}} shown
 */
export function layerPredictions(predicted, { pieces, layer }) {
  const [[final]] = predicted.at(-1);
  const rows = predicted.map((tokens, depth) => {
    const name = depth === 0 ? "Embedding" : `Layer ${depth}`;
    const button = depth === 0 ? name : element("button", { type: "button", class: "plain", "data-layer": depth, "aria-label": `Show ${name.toLowerCase()}`, text: name });
    const cells = tokens.map(([token, share]) => {
      const cell = element("td", { class: `number ${token === final ? "final" : ""}` }, element("bdi", { class: "token-label", text: label(token, pieces) }), ` ${percent(share)}`);
      cell.style.setProperty("--share", share);
      return cell;
    });
    return element("tr", { class: depth === layer ? "shown" : null }, element("th", { scope: "row" }, button), ...cells);
  });
  const heads = ["after", ...predicted[0].map((_, i) => ["likeliest", "second", "third"][i])];
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col", text })));
  const table = element("table", { class: "predictions small" }, element("thead", {}, head), element("tbody", {}, ...rows));
  table.addEventListener("click", ({ target }) => {
    const chosen = target.closest("[data-layer]");
    if (chosen !== null) table.dispatchEvent(new CustomEvent("layer", { bubbles: true, detail: { layer: Number(chosen.dataset.layer) } }));
  });
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Predictions of the layers" }, table);
}
