// Shows a position's candidates: their probabilities under the model, after penalties and after truncation, or what
// one stage did to them.

import { count, decimal, percent } from "../core/figures.js";
import { element } from "../core/dom.js";
import { label } from "../core/spelling.js";
import { stageLabel } from "../core/stages.js";

/**
 * Shows the candidates of a view of `choice_view.js` in `place`. A click on one dispatches "pick" with its token.
 * @param {Element} place
 * @param {object} view
 * @param {Map<number, object>} pieces
 */
export function renderCandidates(place, view, pieces) {
  const table = element("div", { class: "scroll" });
  const show = (stage) => table.replaceChildren(candidateTable(view, pieces, stage));
  place.replaceChildren(stagePicker(view, show), ...idleStages(view), table);
  show(null);
}

/** Lists the stages in their order; one of them can be looked at alone. */
function stagePicker(view, show) {
  const options = [{ text: "all stages", stage: null, told: null }];
  view.stages.forEach(({ name, ...told }, stage) => options.push({ text: stageLabel(name), stage, told: told.cuts ? `${count(told.kept)} left` : null }));
  const choose = ({ target }) => show(target.value === "" ? null : Number(target.value));
  const chips = options.map(({ text, stage, told }) =>
    element(
      "label",
      { class: "chip" },
      element("input", { type: "radio", name: "stage", value: stage === null ? "" : String(stage), checked: stage === null }),
      element("span", { text }),
      told === null ? null : element("small", { class: "number", text: told }),
    ),
  );
  const legend = element("legend", { class: "unseen", text: "Stages, in the order in which they ran" });
  // The form keeps the group apart from those of other inspectors.
  return element("form", {}, element("fieldset", { class: "stages", on: { change: choose } }, legend, ...chips));
}

function idleStages({ idle }) {
  if (idle.length === 0) return [];
  return [element("p", { class: "small dim idle-stages", text: `Changed nothing here: ${idle.map(stageLabel).join(", ")}.` })];
}

function candidateTable(view, pieces, stage) {
  const columns = stage === null ? overview(view) : effectOf(view, stage);
  const shares = view.candidates.flatMap((candidate) => columns.map(({ cell }) => cell(candidate)));
  const largest = Math.max(...shares.filter((value) => value > 0));
  const head = element(
    "tr",
    {},
    element("th", { scope: "col", text: "token" }),
    ...columns.map(({ title, kind }) => element("th", { scope: "col", class: kind, text: title })),
  );
  const rows = view.candidates.map((candidate) => candidateRow(candidate, columns, largest, pieces));
  const body = element("tbody", { on: { click: pick, keydown: move } }, ...rows);
  return element("table", { class: "candidates" }, element("thead", {}, head), body);
}

function candidateRow(candidate, columns, largest, pieces) {
  const { token, taken, after } = candidate;
  const text = label(token, pieces);
  const button = element("button", {
    type: "button",
    class: "token-label",
    "data-token-id": token,
    "aria-label": `${text}: go on from here with this token`,
    text,
  });
  const cells = columns.map(({ kind, cell }) => cellOf(kind, cell(candidate), largest));
  const name = taken ? "taken" : after === 0 ? "cut" : null;
  return element("tr", { class: name }, element("th", { scope: "row" }, button), ...cells);
}

/** Returns a cell of a share, with a bar that says how much of the `largest` it is, or of a text. */
export function cellOf(kind, value, largest) {
  if (typeof value === "string") return element("td", { class: kind, text: value });
  const cell = element("td", { class: `${kind} share number`, text: percent(value) });
  cell.style.setProperty("--share", value > 0 ? value / largest : 0);
  return cell;
}

function overview(view) {
  const columns = [{ title: "model", kind: "model", cell: ({ model }) => model }];
  if (view.adjusted) columns.push({ title: "after penalties", kind: "penalised", cell: ({ penalised }) => penalised });
  columns.push({ title: view.truncated ? "after truncation" : "after all stages: nothing truncated", kind: "after", cell: (candidate) => afterAll(candidate, view.stages) });
  if (view.way === "drawn") {
    columns.push({ title: "log p + noise", kind: "sum words", cell: ({ sum, after }) => (after === 0 ? "" : decimal(sum)) });
  }
  return columns;
}

function afterAll({ after, cutBy }, stages) {
  return cutBy === null ? after : `cut by ${stageLabel(stages[cutBy].name)}`;
}

/** Returns the columns that say what one stage did. */
function effectOf(view, stage) {
  const name = stageLabel(view.stages[stage].name);
  const before = ({ shares, model }) => (stage === 0 ? model : shares[stage - 1]);
  return [
    { title: `before ${name}`, kind: "model", cell: before },
    { title: `after ${name}`, kind: "after", cell: ({ shares }) => shares[stage] },
    { title: "change", kind: "change words", cell: (candidate) => change(candidate, before(candidate), stage) },
  ];
}

function change({ shares, cutBy }, before, stage) {
  if (cutBy !== null && cutBy <= stage) return cutBy === stage ? "cut" : "cut before";
  const factor = shares[stage] / before;
  return Number.isFinite(factor) ? `× ${factor.toPrecision(3)}` : "";
}

function pick({ target, currentTarget }) {
  const found = target.closest("[data-token-id]");
  if (found === null) return;
  const token = Number(found.dataset.tokenId);
  currentTarget.dispatchEvent(new CustomEvent("pick", { bubbles: true, detail: { token } }));
}

function move(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step === undefined) return;
  const buttons = [...event.currentTarget.querySelectorAll("[data-token-id]")];
  const next = buttons[buttons.indexOf(document.activeElement) + step];
  if (next === undefined) return;
  event.preventDefault();
  next.focus();
}
