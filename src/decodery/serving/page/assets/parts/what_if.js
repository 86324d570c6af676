// The part of the inspector with the sliders: fetches the logits of the open position, or asks the server.

import { viewOf } from "../core/choice_view.js";
import { element } from "../core/dom.js";
import { askChoice, drawKeyOf, fetchLogits, positionRequest } from "../core/position_logits.js";
import { reshapable } from "../core/reshapable.js";
import { Position } from "../core/run.js";
import { spellTokens } from "../core/spell_tokens.js";
import { stageLabel } from "../core/stages.js";
import { Reshaper, drawnText, mountSliders, shapedTable, sliderValues, stagesText } from "./sliders.js";

/** Positions that are passed quickly are not fetched. */
const PAUSE_MS = 150;
const CANDIDATES = 10;

/** The part's `element` shows the sliders of one position. Nothing is asked of the server while it is out of view. */
export class WhatIf {
  #app;
  #note = element("p", { class: "dim small" });
  #stages = element("p", { class: "cuts small" });
  #table = element("div", { class: "scroll" });
  #drawn = element("p", { class: "drawn", role: "status" });
  #sliders = mountSliders(() => this.#update());
  #controls;
  /** {run, stream, index, where}: the open position. */
  #open = null;
  #reshaper = null;
  #asking = new AbortController();
  #timer = null;
  #visible = false;
  #wanted = false;
  #shownCount = 0;

  constructor(app) {
    this.#app = app;
    const reset = element("button", { type: "button", text: "Back to the run's values", on: { click: () => this.#reset() } });
    const end = element("div", { class: "row end" }, reset);
    this.#controls = element("div", {}, this.#sliders.element, this.#drawn, this.#stages, this.#table, end);
    this.element = element("section", { class: "what-if" }, element("h3", { text: "What if?" }), this.#note, this.#controls);
    new IntersectionObserver((entries) => {
      this.#visible = entries.at(-1).isIntersecting;
      this.#begin();
    }).observe(this.element);
  }

  /** Opens a position; with `preview` nothing is asked of the server. */
  show(run, stream, index, { preview = false } = {}) {
    const { where, reason, stages } = reshapable(run.params);
    const known = stream.positions[index].choice !== null && where !== "nowhere";
    const sameRun = this.#open?.run === run;
    const same = sameRun && this.#open.stream === stream && this.#open.index === index;
    if (same && !this.#open.failed && (preview || !this.#controls.hidden)) return;
    this.#stop();
    this.#open = { run, stream, index, where, failed: false };
    this.#controls.hidden = !known || preview;
    const none = `There are no sliders here: ${reason || "nothing is known of this choice"}.`;
    this.#note.textContent = known ? noteOf(where, stages, preview) : none;
    // Values that the person chose stay for the other positions of the run.
    if (!sameRun) this.#sliders.set(sliderValues(run.params));
    this.#wanted = known && !preview;
    this.#begin();
  }

  clear() {
    this.#stop();
    this.#open = null;
  }

  #stop() {
    this.#asking.abort();
    clearTimeout(this.#timer);
    this.#wanted = false;
    // Logits of a position that is no longer open are not kept.
    this.#reshaper = null;
    for (const place of [this.#stages, this.#table, this.#drawn]) place.replaceChildren();
    this.#sliders.why(new Map());
  }

  #reset() {
    this.#sliders.set(sliderValues(this.#open.run.params));
    this.#update();
  }

  #begin() {
    if (!this.#visible || !this.#wanted) return;
    this.#wanted = false;
    this.#later((signal) => (this.#open.where === "server" ? this.#askServer(signal) : this.#fetch(signal)));
  }

  #update() {
    if (this.#reshaper !== null) this.#show(this.#reshaper.shape(this.#sliders.values()));
    else if (this.#open?.where === "server") this.#later((signal) => this.#askServer(signal));
  }

  /** Calls `ask` after a pause, unless something else is asked before; shows what goes wrong. */
  #later(ask) {
    clearTimeout(this.#timer);
    this.#asking.abort();
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    this.#timer = setTimeout(async () => {
      try {
        await ask(signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#open.failed = true;
        this.#note.textContent = `The sliders need the server. ${error.message}`;
      }
    }, PAUSE_MS);
  }

  async #fetch(signal) {
    const { run, stream, index } = this.#open;
    const logits = await fetchLogits(this.#app.api, run, stream, index, signal);
    if (signal.aborted) return;
    this.#note.textContent = "";
    this.#reshaper = new Reshaper(logits, run.params, drawKeyOf(run, stream, index));
    this.#update();
  }

  async #askServer(signal) {
    const { run, stream, index } = this.#open;
    const request = positionRequest(run, stream, index, this.#sliders.values());
    const choice = await askChoice(this.#app.api, run.model, request, { candidates: CANDIDATES, signal });
    if (!signal.aborted) this.#show(shapedByServer(viewOf(new Position(choice.token, choice), request.params)));
  }

  async #show(shaped) {
    const { run, stream, index } = this.#open;
    const number = (this.#shownCount += 1);
    const render = () => {
      this.#drawn.textContent = drawnText(shaped, stream.positions[index].token, run.pieces);
      this.#stages.textContent = stagesText(shaped);
      this.#table.replaceChildren(shapedTable(shaped, run.pieces));
    };
    this.#sliders.why(shaped.why);
    render();
    const spelled = await spellTokens(this.#app.api, run, shaped.rows.map(({ token }) => token));
    if (spelled && number === this.#shownCount && this.#open?.run === run) render();
  }
}

/** Returns a view of the server's answer in the form of `Reshaper.shape`. */
function shapedByServer(view) {
  const { token, margin, kept, stages } = view;
  return {
    rows: view.candidates.map(({ token: one, model, after, cutBy }) => ({
      token: one,
      model,
      share: after,
      cutBy: cutBy === null ? null : stages[cutBy].name,
    })),
    kept,
    stages,
    drawn: view.way === "drawn",
    choice: { token, margin: margin?.amount ?? Infinity, runnerUp: margin?.runnerUp ?? null, undecided: false },
    why: new Map(),
  };
}

function noteOf(where, others, preview) {
  if (preview) return "Open the token to re-shape its distribution.";
  if (where === "page") return "The logits of this position are fetched…";
  return `The server answers each change here, because the run also uses ${others.map(stageLabel).join(", ")}.`;
}
