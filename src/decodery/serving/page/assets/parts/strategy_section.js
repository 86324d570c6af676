// Shows what a strategy itself computed for one token: drafts, what contrastive search weighed, what was combined.

import { element } from "../core/dom.js";
import { decimal, percent } from "../core/figures.js";
import { label } from "../core/spelling.js";

const SIDES = {
  DoLa: { own: "last layer", other: "earlier layer", effect: "What the last layers added: a token gains where the last layer finds it likelier than the earlier one." },
  "contrastive decoding": { own: "model", other: "amateur", effect: "A token gains where the model finds it likelier than the amateur." },
  guidance: { own: "with the prompt", other: "with the negative prompt", effect: "A token gains where the prompt makes it likelier than the negative prompt." },
};
const SOURCES = {
  text: "this text",
  "earlier texts": "earlier texts",
  successors: "the token that followed most often",
};

/**
 * Shows the section in `place`, which is hidden where the strategy has nothing of its own to tell.
 * Its candidates carry `data-token-id`.
 * @param {HTMLElement} place
 * @param {import("../core/run.js").Run} run
 * @param {import("../core/run.js").Position} position
 */
export function renderStrategy(place, run, position) {
  const { choice } = position;
  const parts = [draftPart(run, position), weighedPart(run, choice), ...combinedParts(run, choice)].filter((part) => part !== null);
  place.replaceChildren(...parts);
  place.hidden = parts.length === 0;
}

function draftPart(run, { drafted, source, accepted, token, picked }) {
  if (picked) return section("Picked", element("p", { text: "A person chose this token; the strategy did not." }));
  if (drafted === null) return null;
  const from = source === null ? "" : ` from ${SOURCES[source] ?? source}`;
  const text = accepted
    ? `${label(token, run.pieces)} was drafted${from} and accepted: the model would have chosen it too.`
    : `${label(drafted, run.pieces)} was drafted${from} and rejected: the model chose ${label(token, run.pieces)}.`;
  return section("Draft", element("p", { class: accepted ? "accepted" : "rejected", text }));
}

function weighedPart(run, choice) {
  const weighed = choice?.weighed ?? [];
  if (weighed.length === 0) return null;
  const alpha = run.params.strategy?.penalty_alpha;
  const rows = weighed.map(({ token, probability, similarity, score }) => [token, percent(probability), fixed(similarity, 3), fixed(score, 3)]);
  const formula =
    alpha === undefined
      ? "The score weighs a token's probability against its likeness to the text so far."
      : `score = ${number(1 - alpha)} × probability − ${number(alpha)} × similarity to the text so far; the largest decides.`;
  return section("Contrastive search", table(run, choice, ["token", "probability", "similarity", "score"], rows), element("p", { class: "small dim", text: formula }));
}

function combinedParts(run, choice) {
  return (choice?.combined ?? []).map((combined) => combinedPart(run, choice, combined));
}

function combinedPart(run, choice, { name, own, other, layer, divergences }) {
  const sides = SIDES[name];
  const rows = choice.candidates.map(({ token }, i) => [token, fixed(own[i], 2), fixed(other[i], 2), signed(own[i] - other[i])]);
  const second = layer === undefined || layer === null ? sides.other : `layer ${layer}`;
  const parts = [
    table(run, choice, ["token", sides.own, second, "difference"], rows),
    element("p", { class: "small dim", text: `Log-probabilities. ${sides.effect}` }),
  ];
  if (divergences?.length > 0) parts.push(layers(divergences, layer));
  return section(name === "guidance" ? "Guidance" : name === "DoLa" ? "DoLa" : "Contrastive decoding", ...parts);
}

/** Returns the layers that DoLa could take, with bars for how much each differs from the last one. */
function layers(divergences, chosen) {
  const most = Math.max(...divergences.map(([, value]) => value));
  const items = divergences.map(([layer, value]) => {
    const bar = element("span", { class: "share-bar" });
    bar.style.setProperty("--share", String(most > 0 ? value / most : 0));
    const name = `layer ${layer}${layer === chosen ? ", taken" : ""}`;
    return element("li", { class: layer === chosen ? "taken" : "" }, element("span", { text: name }), bar, element("span", { class: "number", text: value.toFixed(4) }));
  });
  return element("div", {}, element("p", { class: "small dim", text: "How much each earlier layer differs from the last:" }), element("ul", { class: "layer-bars" }, ...items));
}

function section(title, ...content) {
  return element("section", { class: "strategy-part" }, element("h3", { text: title }), ...content);
}

function table(run, choice, heads, rows) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col", text })));
  const body = rows.map(([token, ...numbers]) =>
    element(
      "tr",
      { class: token === choice.token ? "chosen" : "" },
      element("th", { scope: "row" }, element("button", { type: "button", class: "plain mono", "data-token-id": token, text: label(token, run.pieces) })),
      ...numbers.map((text) => element("td", { class: "number", text })),
    ),
  );
  return element("div", { class: "strategy-scroll", tabindex: 0, role: "group", "aria-label": heads.slice(1).join(", ") }, element("table", { class: "strategy-table" }, element("thead", {}, head), element("tbody", {}, ...body)));
}

function fixed(value, digits) {
  return value === -Infinity ? "−∞" : decimal(value, digits);
}

function signed(value) {
  // Both are impossible.
  if (Number.isNaN(value)) return "–";
  return `${value < 0 ? "" : "+"}${fixed(value, 2)}`;
}

function number(value) {
  return String(Math.round(value * 1000) / 1000);
}
