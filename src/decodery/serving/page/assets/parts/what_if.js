// The part of the inspector with the sliders: fetches the logits of the open position, or asks the server.

import { viewOf } from "../core/choice_view.js";
import { element } from "../core/dom.js";
import { askChoice, fetchLogits, positionRequest } from "../core/position_logits.js";
import { reshapable } from "../core/reshapable.js";
import { Position } from "../core/run.js";
import { spellTokens } from "../core/spell_tokens.js";
import { stageLabel } from "../core/stages.js";
import { Reshaper, drawnText, mountSliders, shapedTable, sliderValues, stagesText } from "./sliders.js";

/** Positions that are passed quickly are not fetched. */
const PAUSE_MS = 150;
const CANDIDATES = 10;

/**
 * Returns the part. `show` opens a position; with `preview` nothing is asked of the server.
 * @returns {{element: Element, show(run: object, stream: object, index: number, options: {preview: boolean}): void,
 *   clear(): void}}
 */
export function whatIf(app) {
  const note = element("p", { class: "dim small" });
  const stages = element("p", { class: "cuts small" });
  const table = element("div", { class: "scroll" });
  const drawn = element("p", { class: "drawn", role: "status" });
  const sliders = mountSliders(() => update());
  const reset = element("button", { type: "button", text: "Back to the run's values", on: { click: () => start() } });
  const controls = element("div", {}, sliders.element, drawn, stages, table, element("div", { class: "row end" }, reset));
  const part = element("section", { class: "what-if" }, element("h3", { text: "What if?" }), note, controls);
  let open = null;
  let reshaper = null;
  let asking = new AbortController();
  let timer = null;
  let shownCount = 0;

  function stop() {
    asking.abort();
    asking = new AbortController();
    clearTimeout(timer);
    // Logits of a position that is no longer open are not kept.
    reshaper = null;
    for (const place of [stages, table, drawn]) place.replaceChildren();
    sliders.why(new Map());
  }

  function start() {
    sliders.set(sliderValues(open.run.params));
    update();
  }

  /** Calls `ask` after a pause, unless another position is opened before; shows what goes wrong. */
  function later(ask) {
    clearTimeout(timer);
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    timer = setTimeout(async () => {
      try {
        await ask(signal);
      } catch (error) {
        if (!signal.aborted) note.textContent = `The sliders need the server. ${error.message}`;
      }
    }, PAUSE_MS);
  }

  function update() {
    if (reshaper !== null) showShaped(reshaper.shape(sliders.values()));
    else if (open?.where === "server") later(askServer);
  }

  async function fetchPosition(signal) {
    const { run, stream, index } = open;
    const logits = await fetchLogits(app.api, run, stream, index, signal);
    if (signal.aborted) return;
    note.textContent = "";
    reshaper = new Reshaper(logits, run.params, stream.positions[index].choice?.draw_key ?? null);
    update();
  }

  async function showShaped(shaped) {
    const { run, stream, index } = open;
    const number = (shownCount += 1);
    const current = () => number === shownCount && open?.run === run;
    const taken = stream.positions[index].token;
    const render = () => {
      drawn.textContent = drawnText(shaped, taken, run.pieces);
      stages.textContent = stagesText(shaped);
      table.replaceChildren(shapedTable(shaped, run.pieces));
    };
    sliders.why(shaped.why);
    render();
    const spelled = await spellTokens(app.api, run, shaped.rows.map(({ token }) => token));
    if (spelled && current()) render();
  }

  async function askServer(signal) {
    const { run, stream, index } = open;
    const request = positionRequest(run, stream, index, sliders.values());
    const choice = await askChoice(app.api, run.model, request, { candidates: CANDIDATES, signal });
    if (signal.aborted) return;
    showAnswered(viewOf(new Position(choice.token, choice), request.params));
  }

  function showAnswered(view) {
    showShaped({
      rows: view.candidates.map(({ token, model, after, cutBy }) => ({
        token,
        model,
        share: after,
        cutBy: cutBy === null ? null : view.stages[cutBy].name,
      })),
      kept: view.kept,
      stages: view.stages,
      drawn: view.way === "drawn",
      choice: { token: view.token, margin: view.margin?.amount ?? Infinity, runnerUp: view.margin?.runnerUp, undecided: false },
      why: new Map(),
    });
  }

  return {
    element: part,
    show(run, stream, index, { preview }) {
      const { where, reason, stages: others } = reshapable(run.params);
      const known = stream.positions[index].choice !== null && where !== "nowhere";
      const sameRun = open?.run === run;
      const same = sameRun && open.stream === stream && open.index === index;
      if (same && (preview || !controls.hidden)) return;
      stop();
      open = { run, stream, index, where };
      controls.hidden = !known || preview;
      note.textContent = known ? noteOf(where, others, preview) : `There are no sliders here: ${reason || "nothing is known of this choice"}.`;
      // Values that the person chose stay for the other positions of the run.
      if (!sameRun) sliders.set(sliderValues(run.params));
      if (!known || preview) return;
      if (where === "server") update();
      else later(fetchPosition);
    },
    clear() {
      stop();
      open = null;
    },
  };
}

function noteOf(where, others, preview) {
  if (preview) return "Open the token to re-shape its distribution.";
  if (where === "page") return "The logits of this position are fetched…";
  return `The server answers each change here, because the run also uses ${others.map(stageLabel).join(", ")}.`;
}
