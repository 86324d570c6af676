// Shows one token of a prompt: how likely it was, what was likelier, and ways to change it.

import { element } from "../core/dom.js";
import { count, decimal, percent } from "../core/figures.js";
import { label, labelOfText } from "../core/spelling.js";

/**
 * Shows a token of a prompt in `place`.
 *
 * Dispatches from `place`, bubbling: "delete" and "replace" with {place, text}, and "token" with {place, token}.
 * @param {import("../core/prompt_variants.js").Prompt} prompt
 * @param {{logprobs: (object | null)[], pieces: Map<number, object>}} scores
 */
export function showPromptToken(place, prompt, scores, at) {
  const scored = scores.logprobs[at];
  const tell = (type, detail) => place.dispatchEvent(new CustomEvent(type, { bubbles: true, detail: { place: at, ...detail } }));
  place.replaceChildren(
    element("h3", {}, element("bdi", { class: "token-label", text: label(prompt.ids[at], scores.pieces) }), ` token ${count(at + 1)} of ${count(prompt.ids.length)}`),
    factsOf(prompt, scored, at),
    changes(prompt, at, tell),
    scored === null ? element("p", { class: "dim small", text: "The first token has no probability: nothing comes before it." }) : candidates(scored, scores.pieces, tell),
  );
}

function factsOf(prompt, scored, at) {
  const rows = [["Id", String(prompt.ids[at])]];
  if (scored !== null) {
    const surprise = -scored.logprob / Math.LN2;
    rows.unshift(
      ["Probability", percent(Math.exp(scored.logprob))],
      ["Surprise", `${decimal(surprise)} bits`],
      ["Rank", count(scored.rank)],
    );
  }
  return element("dl", { class: "token-facts small number" }, ...rows.map(([term, text]) => element("div", {}, element("dt", { text: term }), element("dd", { text }))));
}

function changes(prompt, at, tell) {
  const word = prompt.word(at);
  if (word === null) return element("p", { class: "dim small", text: "This token stands around the text." });
  const text = prompt.text.slice(...word);
  const field = element("input", { id: "other-word", type: "text", autocomplete: "off", value: text });
  const form = element(
    "form",
    { class: "row" },
    element("label", { for: "other-word", class: "small", text: "Another word" }),
    field,
    element("button", { type: "submit", text: "Replace" }),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    tell("replace", { text: field.value });
  });
  return element(
    "div",
    { class: "row changes" },
    element("button", { type: "button", on: { click: () => tell("delete", {}) } }, "Delete ", element("bdi", { class: "token-label", text: labelOfText(text) })),
    form,
  );
}

function candidates({ token, top }, pieces, tell) {
  const rows = top.map(([id, logprob], rank) => {
    const chosen = id === token;
    const name = element("bdi", { class: "token-label", text: label(id, pieces) });
    const button = element("button", { type: "button", class: "plain", "data-token-id": id, title: "Take this token in its place", on: { click: () => tell("token", { token: id }) } }, name);
    const bar = element("span", { class: "gauge", "aria-hidden": "true" }, element("i"));
    bar.firstChild.style.setProperty("width", `${100 * Math.exp(logprob)}%`);
    return element(
      "tr",
      { class: chosen ? "taken" : null },
      element("td", { class: "dim", text: String(rank + 1) }),
      element("th", { scope: "row" }, chosen ? name : button),
      element("td", {}, bar, percent(Math.exp(logprob))),
    );
  });
  const head = ["Rank", "Token", "Probability"].map((text) => element("th", { scope: "col", text }));
  return element(
    "div",
    { class: "scroll" },
    element("table", { class: "likeliest number small" }, element("caption", { class: "dim", text: "Likeliest here. Choose one to take it in this token's place." }), element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)),
  );
}
