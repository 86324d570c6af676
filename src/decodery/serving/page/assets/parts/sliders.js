// Sliders that re-shape the distribution of the open position, and what they would have drawn there.

import { count, decimal } from "../core/figures.js";
import { element } from "../core/dom.js";
import { Distribution, choose, reshape } from "../core/reshape.js";
import { whyNothing } from "../core/reasons.js";
import { label } from "../core/spelling.js";
import { orderOf, stageLabel } from "../core/stages.js";
import { cellOf } from "./candidate_table.js";

const SHOWN = 10;
const SLIDERS = [
  { name: "temperature", label: "temperature", neutral: 1, min: 0, max: 2, step: 0.01, most: null },
  { name: "top_k", label: "top-k", neutral: 0, min: 0, max: 100, step: 1, most: null },
  { name: "top_p", label: "top-p", neutral: 1, min: 0.01, max: 1, step: 0.01, most: 1 },
  { name: "min_p", label: "min-p", neutral: 0, min: 0, max: 1, step: 0.01, most: 1 },
];

/** Returns the values of the sliders in a run's parameters. */
export function sliderValues(params) {
  return Object.fromEntries(SLIDERS.map(({ name, neutral }) => [name, params[name] ?? neutral]));
}

/**
 * Mounts the sliders. `changed(values)` is called when the person moves one.
 * @returns {{element: Element, set(values: object): void, values(): object, why(reasons: Map<string, string>): void}}
 */
export function mountSliders(changed) {
  const fields = new Map(SLIDERS.map((slider) => [slider.name, sliderField(slider, () => changed(values()))]));
  const values = () => Object.fromEntries([...fields].map(([name, field]) => [name, field.value()]));
  return {
    element: element("div", { class: "sliders" }, ...[...fields.values()].map((field) => field.element)),
    values,
    set: (given) => fields.forEach((field, name) => field.set(given[name])),
    why: (reasons) => fields.forEach((field, name) => field.note(reasons.get(name) ?? "")),
  };
}

function sliderField({ name, label: text, min, max, step, most }, changed) {
  // There may be several inspectors.
  const id = `slider-${name}-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
  const range = element("input", { type: "range", id, min, max, step });
  const exact = element("input", { type: "number", class: "number", min, max: most, step: "any", "aria-label": `${text}, exactly`, inputmode: "decimal" });
  const note = element("p", { class: "why small", id: `${id}-why` });
  range.setAttribute("aria-describedby", note.id);
  let value = 0;
  const take = (given) => {
    if (!Number.isFinite(given) || given < min || (most !== null && given > most)) return;
    value = name === "top_k" ? Math.round(given) : given;
    changed();
  };
  range.addEventListener("input", () => {
    exact.value = range.value;
    take(range.valueAsNumber);
  });
  exact.addEventListener("input", () => {
    range.value = exact.value;
    take(exact.valueAsNumber);
  });
  return {
    element: element("div", { class: "slider" }, element("label", { for: id, text }), range, exact, note),
    value: () => value,
    set(given) {
      value = given;
      range.value = String(given);
      exact.value = String(given);
    },
    note(reason) {
      note.textContent = reason === "" ? "" : `Changes nothing: ${reason}.`;
    },
  };
}

/** Holds the logits of the open position, and re-shapes them. */
export class Reshaper {
  /**
   * @param {{model: Float32Array, adjusted: Float32Array}} logits
   * @param {object} params  Those of the run.
   * @param {[number, number] | null} key  The position's draw key; null if it is not known.
   */
  constructor(logits, params, key) {
    this.distribution = new Distribution(logits.adjusted);
    this.order = orderOf(params);
    this.key = key;
    this.vocabulary = logits.model.length;
    this.model = logits.model;
    this.modelNorm = logOfSum(logits.model);
  }

  /** Returns the model's probability of a token. */
  modelShare(token) {
    return Math.exp(this.model[token] - this.modelNorm);
  }

  /**
   * Returns what these values make of the position.
   * @returns {{rows: {token: number, model: number, share: number, cutBy: ?string}[], kept: number,
   *   stages: {name: string, kept: number}[], drawn: boolean, choice: ?object, why: Map<string, string>}}
   */
  shape(values) {
    const shape = reshape(this.distribution, values, this.order);
    const choice = choose(shape, this.key);
    const { tokens } = this.distribution;
    const places = [...tokens.subarray(0, SHOWN).keys()];
    if (choice !== null && choice.place >= SHOWN) places.push(choice.place);
    return {
      rows: places.map((place) => ({
        token: tokens[place],
        model: this.modelShare(tokens[place]),
        share: shape.probability(place),
        cutBy: shape.cutBy(place),
      })),
      kept: shape.kept,
      stages: shape.stages,
      drawn: shape.drawn,
      choice: choice && { ...choice, runnerUp: choice.runnerUp === null ? null : tokens[choice.runnerUp] },
      why: whyNothing(shape, values, this.order),
    };
  }
}

function logOfSum(logits) {
  let largest = -Infinity;
  for (const logit of logits) if (logit > largest) largest = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - largest);
  return largest + Math.log(sum);
}

/**
 * Returns what a re-shaped position looks like.
 * @param {object} shaped  What `Reshaper.shape` returned.
 */
export function shapedTable(shaped, pieces) {
  const { choice } = shaped;
  const largest = Math.max(...shaped.rows.flatMap(({ model, share }) => [model, share]));
  const rows = shaped.rows.map(({ token, model, share, cutBy }) => {
    const name = token === choice?.token ? "taken" : share === 0 ? "cut" : null;
    return element(
      "tr",
      { class: name },
      element("th", { scope: "row" }, element("bdi", { class: "token-label", text: label(token, pieces) })),
      cellOf("model", model, largest),
      cellOf("after", cutBy === null ? share : `cut by ${stageLabel(cutBy)}`, largest),
    );
  });
  const head = ["token", "model", "with these values"].map((text) => element("th", { scope: "col", text }));
  return element(
    "table",
    { class: "candidates" },
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...rows),
  );
}

/** Returns the stages with how many tokens each leaves, as a sentence. */
export function stagesText({ stages, kept, drawn }) {
  if (!drawn) return "Temperature 0: greedy, nothing is cut.";
  const parts = stages.map((stage) =>
    stage.name === "temperature" ? "temperature" : `${stageLabel(stage.name)} leaves ${count(stage.kept)}`,
  );
  return parts.length === 0 ? `Nothing is cut: ${count(kept)} tokens are left.` : `In order: ${parts.join(", ")}.`;
}

/** Returns what would have been drawn, as a sentence. */
export function drawnText({ choice, drawn }, taken, pieces) {
  if (choice === null) return "What would be drawn is not known: the page does not know the seed exactly.";
  const name = (token) => `“${label(token, pieces)}”`;
  const verb = drawn ? "drawn" : "taken";
  if (choice.undecided) {
    const other = choice.runnerUp === null ? "" : ` or ${name(choice.runnerUp)}`;
    return `Undecided: ${name(choice.token)}${other}. They differ by less than rounding.`;
  }
  const margin = Number.isFinite(choice.margin) ? `, ${decimal(choice.margin)} ahead of ${name(choice.runnerUp)}` : "";
  if (choice.token === taken) return `The same token would be ${verb}: ${name(taken)}${margin}.`;
  return `Another token would be ${verb}: ${name(choice.token)}${margin}.`;
}
