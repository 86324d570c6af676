// Shows how likely each answer is after each variant of a prompt.

import { element } from "../core/dom.js";
import { decimal, percent } from "../core/figures.js";
import { label } from "../core/spelling.js";

/**
 * The log-probabilities of an answer's tokens after a variant, or why there are none.
 * @typedef {{logprobs: number[]} | {error: string} | undefined} Cell
 */

/** Returns the log-probability of a whole answer; null where there is none. */
export function total(cell) {
  return cell?.logprobs === undefined ? null : cell.logprobs.reduce((sum, one) => sum + one, 0);
}

/** Returns how probability divides among the answers of a row, by their log-probabilities; null for missing ones. */
export function shares(totals) {
  const known = totals.filter((one) => one !== null);
  const most = Math.max(...known);
  const sum = known.reduce((found, one) => found + Math.exp(one - most), 0);
  return totals.map((one) => (one === null || most === -Infinity ? null : Math.exp(one - most) / sum));
}

/**
 * Returns the table. Its buttons dispatch "remove-answer" and "remove-variant" with {index}, bubbling.
 * @param {{variants: object[], answers: {ids: number[], pieces: Map<number, object>}[], cell: (variant: object, answer: object) => Cell}} shown
 */
export function answerTable({ variants, answers, cell }) {
  const base = answers.map((answer) => total(cell(variants[0], answer)));
  const rows = variants.map((variant, row) => {
    const cells = answers.map((answer) => cell(variant, answer));
    const parts = shares(cells.map(total));
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, element("div", { class: "variant" }, changeOf(variant), row === 0 ? null : remover("variant", row))),
      ...cells.map((one, column) => cellOf(one, parts[column], row === 0 ? null : base[column], answers[column])),
    );
  });
  const head = answers.map((answer, index) => element("th", { scope: "col" }, element("div", { class: "variant" }, labelOfAnswer(answer), remover("answer", index))));
  return element("table", { class: "answers number" }, element("thead", {}, element("tr", {}, element("th", { scope: "col", text: "Prompt" }), ...head)), element("tbody", {}, ...rows));
}

/** Returns an answer with its tokens divided by thin gaps. */
function labelOfAnswer({ ids, pieces }) {
  return element("bdi", { class: "answer" }, ...ids.map((id) => element("span", { class: "token-label", text: label(id, pieces) })));
}

function changeOf({ change: { before, deleted, added, after } }) {
  return element(
    "bdi",
    { class: "change" },
    before,
    deleted === "" ? null : element("del", { text: deleted }),
    added === "" ? null : element("ins", { text: added }),
    after,
  );
}

function remover(kind, index) {
  const button = element("button", { type: "button", class: "plain remove", "aria-label": `Remove ${kind} ${index + 1}`, text: "✕" });
  button.addEventListener("click", () => button.dispatchEvent(new CustomEvent(`remove-${kind}`, { bubbles: true, detail: { index } })));
  return button;
}

function cellOf(cell, share, base, { ids, pieces }) {
  if (cell === undefined) return element("td", { class: "dim", text: "…" });
  if (cell.error !== undefined) return element("td", { class: "wrong small", text: cell.error });
  const logprob = total(cell);
  const each = cell.logprobs.map((one, i) => `${label(ids[i], pieces)} ${decimal(one)}`).join("   ");
  const made = element(
    "td",
    { "data-logprob": logprob, title: `log-probability of each token: ${each}` },
    element("span", { class: "answer-share" }, element("i")),
    element("b", { text: percent(Math.exp(logprob)) }),
    element("small", { text: `log ${decimal(logprob)}` }),
    base === null ? null : element("small", { class: logprob >= base ? "up" : "down", text: change(logprob - base) }),
  );
  made.firstChild.firstChild.style.setProperty("width", `${100 * (share ?? 0)}%`);
  return made;
}

/** Returns a difference of log-probabilities as a factor of probability. */
export function change(difference) {
  if (Number.isNaN(difference)) return "–";
  if (Math.abs(difference) < 0.005) return "the same";
  if (Math.abs(difference) > 12) return `log ${difference > 0 ? "+" : ""}${decimal(difference, 1)}`;
  const factor = Math.exp(Math.abs(difference));
  const text = factor < 10 ? factor.toFixed(2) : Math.round(factor).toLocaleString("en");
  return difference > 0 ? `${text} × as likely` : `${text} × less likely`;
}
