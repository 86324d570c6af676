// Shows one position of a stream: why this token. Below it sliders show what other parameters would have done.

import { viewOf } from "../core/choice_view.js";
import { element } from "../core/dom.js";
import { count, decimal, percent } from "../core/figures.js";
import { label } from "../core/spelling.js";
import { renderCandidates } from "./candidate_table.js";
import { drawChart } from "./draw_chart.js";
import { WhatIf } from "./what_if.js";

/**
 * Mounts the inspector. It dispatches "branch" from `place`, with {run, stream, index, token}, when a candidate is
 * clicked.
 * @param {Element} place
 * @param {object} app
 * @returns {{show(run: object, stream: object, index: number, options?: {preview?: boolean}): void, clear(): void}}
 *   with `preview` nothing is asked of the server
 */
export function mountInspector(place, app) {
  const head = element("header", {});
  const candidates = element("div", { class: "candidates-part" });
  const draw = element("div", { class: "draw-part" });
  const below = new WhatIf(app);
  const body = element("div", { class: "inspector", hidden: true }, head, candidates, draw, below.element);
  const empty = element("p", { class: "dim", text: "Choose a token of the text to see why it was taken." });
  place.append(empty, body);
  let shown = null;

  candidates.addEventListener("pick", ({ detail }) => {
    place.dispatchEvent(new CustomEvent("branch", { bubbles: true, detail: { ...shown, ...detail } }));
  });

  return {
    show(run, stream, index, { preview = false } = {}) {
      const position = stream.positions[index];
      if (position === undefined) return;
      empty.hidden = true;
      body.hidden = false;
      const same = shown !== null && shown.run === run && shown.stream === stream && shown.index === index;
      if (!same) {
        const view = viewOf(position, run.params, run.vocabSize);
        head.replaceChildren(...header(run, stream, index, position, view));
        candidates.replaceChildren();
        draw.replaceChildren();
        if (view !== null) {
          renderCandidates(candidates, view, run.pieces);
          draw.replaceChildren(...drawPart(view, run.pieces));
        }
      }
      shown = { run, stream, index };
      below.show(run, stream, index, { preview });
    },
    clear() {
      shown = null;
      below.clear();
      body.hidden = true;
      empty.hidden = false;
    },
  };
}

function header(run, stream, index, position, view) {
  const title = element(
    "h2",
    {},
    element("bdi", { class: "token-label", text: label(position.token, run.pieces) }),
    element("small", { class: "dim number", text: ` token ${index + 1} of ${stream.positions.length}` }),
  );
  if (view === null) return [title, element("p", { text: noChoice(run, position) })];
  return [
    title,
    ...sentences(view, run.pieces).map((text) => element("p", { text })),
    element("dl", { class: "facts" }, ...facts(view).map(([name, value]) => fact(name, value))),
  ];
}

function fact(name, value) {
  return element("div", {}, element("dt", { text: name }), element("dd", { class: "number", text: value }));
}

function noChoice(run, { logprob }) {
  const told = logprob === null ? "" : ` Its probability under the model was ${percent(Math.exp(logprob))}.`;
  const why = run.steps.length > 0 ? "Beam search chose whole texts, not this token: see the tree." : "The server did not tell this choice.";
  return why + told;
}

function facts(view) {
  const found = [
    ["probability (model)", percent(view.before)],
    ["probability (after all stages)", percent(view.after)],
    ["surprise", `${decimal(view.surprise)} bits`],
    ["rank", count(view.rank)],
    ["entropy of all tokens", `${decimal(view.entropy)} bits`],
    ["tokens left", count(view.kept)],
  ];
  if (view.tail !== null) found.push(["probability of all other tokens (model)", percent(view.tail)]);
  if (view.allowed !== null) found.push(["allowed by the grammar", count(view.allowed)]);
  return found;
}

/** Returns sentences that say how the token was taken. */
function sentences(view, pieces) {
  const found = [wayText(view, pieces)];
  if (view.allowedTokens.length > 1) {
    const names = view.allowedTokens.map((token) => `“${label(token, pieces)}”`);
    found.push(`The grammar allowed ${names.join(", ")}.`);
  }
  return found;
}

function wayText(view, pieces) {
  const { way, kept, margin } = view;
  const left = kept === 1 ? "the only token left" : `of the ${count(kept)} tokens left`;
  const runnerUp = margin === null ? "" : `“${label(margin.runnerUp, pieces)}”`;
  if (way === "picked") return "You picked this token.";
  if (way === "forced") return "Forced: the grammar allowed no other token.";
  if (way === "drawn" && kept === 1) return `Drawn: it was ${left}.`;
  if (way === "drawn") {
    const ahead = margin === null ? "" : `, ${decimal(margin.amount)} more than ${runnerUp}${margin.exact ? "" : ", the best other one shown"}`;
    return `Drawn: ${left}, it has the largest sum of log p and noise${ahead}.`;
  }
  if (way === "greedy") {
    const ahead = margin === null ? "" : `, ${Number(Math.exp(margin.amount).toPrecision(3))} times as likely as ${runnerUp}`;
    return `Greedy: the likeliest token that is allowed${ahead}. Temperature and truncation do nothing.`;
  }
  if (way === "rejection") return "A draft was judged here by rejection sampling, with its own chance.";
  if (way === "weighed") return "Contrastive search weighed the likeliest tokens against the text.";
  return "The strategy chose this token.";
}

function drawPart(view, pieces) {
  if (view.way !== "drawn" || view.kept < 2) return [];
  const tokens = view.candidates
    .filter(({ after }) => after > 0)
    .map(({ token, after, noise, taken }) => ({ token, logprob: Math.log(after), noise, taken }));
  return [element("h3", { text: "The draw" }), drawChart(tokens, view.kept, pieces)];
}
