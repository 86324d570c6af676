// Writes one token at a time: the server says what could come next, and the person takes or types it.

import { completionOf, continuation, pickedChoice } from "../core/branches.js";
import { element } from "../core/dom.js";
import { percent } from "../core/figures.js";
import { Position, Run, RunReader } from "../core/run.js";
import { givenLines } from "../core/run_json.js";
import { newSeed } from "../core/runs.js";
import { label } from "../core/spelling.js";
import { tokenize, tokenizeAfter } from "../core/tokenizing.js";

const CANDIDATES = 10;

/**
 * @param {HTMLElement} place
 * @param {object} app
 * @param {{open(run: object, stream: object): void}} to shows the text
 * @returns {{begin(asked: {prompt: string | number[], params: object}): void,
 *   goOn(run: object, stream: object, count: number): void, close(): void, readonly run: object | null}}
 */
export function mountStepper(place, app, { open }) {
  const list = element("ol", { class: "next-tokens", "aria-label": "What could come next" });
  const status = element("p", { class: "small dim", role: "status" });
  const next = element("button", { type: "button", class: "primary", text: "Take the drawn one", on: { click: () => take(seen.token) } });
  const undo = element("button", { type: "button", text: "Undo", on: { click: takeBack } });
  const done = element("button", { type: "button", text: "Close", on: { click: leave } });
  const typed = element("input", { id: "step-text", autocomplete: "off", spellcheck: "false" });
  const form = element(
    "form",
    { class: "row", on: { submit: (event) => (event.preventDefault(), type(typed.value)) } },
    element("label", { for: "step-text", text: "Or type what comes next" }),
    typed,
    element("button", { type: "submit", text: "Add" }),
  );
  const help = element("p", { class: "small", text: "You choose each token: take the one that was drawn, click another one, or type a text." });
  place.append(element("h2", { text: "One token at a time" }), help, status, list, element("div", { class: "row" }, next, undo, done), form);
  place.classList.add("stepper");
  place.hidden = true;
  list.addEventListener("click", ({ target }) => {
    const chosen = target.closest("[data-token-id]");
    if (chosen !== null) take(Number(chosen.dataset.tokenId));
  });

  let run = null;
  let stream = null;
  /** The number of positions that were there before the first step. */
  let floor = 0;
  let asking = null;
  let seen = null;
  let header = null;
  /** The tokens of each step: several where a text was typed. */
  let taken = [];

  function begin({ prompt, params }) {
    const text = typeof prompt === "string" ? prompt : null;
    const seeded = { ...params, n: 1, best_of: null, seed: params.seed ?? newSeed() };
    const promptTokenIds = text === null ? prompt : [];
    start(new Run({ model: app.models.current, prompt: text, promptTokenIds, params: seeded, seed: seeded.seed }));
  }

  function goOn(from, old, count) {
    const asked = continuation(from, old, count);
    const parent = { run: from.id, stream: old.index, position: count, token: null };
    const { params, given, pieces, messages } = asked;
    const { model, promptTokenIds, seed, prompt } = from;
    start(new Run({ model, parent, prompt, promptTokenIds, params, seed, given, pieces, messages, drawn: completionOf(from, old) }));
  }

  function start(made) {
    close();
    run = made;
    run.title = "step by step";
    stream = run.stream(0);
    floor = stream.positions.length;
    taken = [];
    run.state = "done";
    app.runs.add(run);
    header = null;
    place.hidden = false;
    open(run, stream);
    ask();
  }

  /** Asks what comes next: the request is the whole one, dropped after its first token. */
  async function ask(unscored = 0) {
    asking?.abort();
    const controller = new AbortController();
    asking = controller;
    seen = null;
    show("…");
    const probe = new Run({});
    const reader = new RunReader([probe]);
    try {
      for await (const line of app.api.lines("/trace", bodyOf(unscored), controller.signal)) {
        if (asking !== controller) return;
        reader.feed(line);
        if (probe.streams.some(({ positions }) => positions.length > 0)) break;
      }
      controller.abort();
      learn(probe, unscored);
    } catch (error) {
      if (asking === controller && !controller.signal.aborted) show(error.message);
    }
  }

  function bodyOf(unscored) {
    const tokens = stream.positions.map(({ token }) => token);
    // Before the first answer only the text of the prompt is known.
    const prompt = run.promptTokenIds.length === 0 ? run.prompt : [...run.promptTokenIds, ...tokens];
    const scored = unscored === 0 ? {} : { prompt_logprobs: 0, prompt_logprobs_start: prompt.length - unscored };
    const asked = { prompt, params: { ...run.params, seed: run.seed, ...scored } };
    if (tokens.length > 0) Object.assign(asked, { generated: tokens.length, stream: run.drawn });
    return { model: run.model, candidates: CANDIDATES, requests: [asked] };
  }

  /** Takes over what a probe told: the prompt's ids, the spelling of tokens, and the next choice. */
  function learn(probe, unscored) {
    if (run.promptTokenIds.length === 0) run.promptTokenIds = probe.promptTokenIds;
    for (const [token, piece] of probe.pieces) run.pieces.set(token, piece);
    header = probe.lines[0] ?? header;
    stream.text = header.requests[0].generated_text ?? "";
    if (unscored > 0) score(probe.promptLogprobs, unscored);
    const [found] = probe.streams;
    seen = found?.positions[0]?.choice ?? null;
    if (found !== undefined && found.positions.length === 0) stream.finishReason = found.finishReason;
    if (probe.error) show(probe.error);
    else if (seen === null) show(stream.finishReason === null ? "This strategy does not choose token by token." : "The text has ended.");
    else show("");
    if (unscored > 0) open(run, stream);
    else run.changed();
    keep();
  }

  /** Gives typed tokens the log-probabilities that the server told of them. */
  function score(logprobs, count) {
    const entries = (logprobs ?? []).slice(-count);
    entries.forEach((entry, i) => {
      const position = stream.positions[stream.positions.length - count + i];
      if (entry !== null) position.logprob = entry.logprob;
    });
  }

  function take(token) {
    const picked = token !== seen.token;
    stream.positions.push(new Position(token, pickedChoice(seen, token), { picked }));
    taken.push(1);
    run.changed();
    ask();
  }

  async function type(text) {
    if (text === "" || seen === null) return;
    try {
      const tokens = await tokensOf(text);
      for (const token of tokens) stream.positions.push(new Position(token, null, { picked: true }));
      taken.push(tokens.length);
      typed.value = "";
      ask(tokens.length);
    } catch (error) {
      show(error.message);
    }
  }

  /** Returns the tokens of a text that goes on from the one so far, as if both were one. */
  async function tokensOf(text) {
    const { model } = run;
    const known = [...run.promptTokenIds, ...stream.tokens];
    const { prompt } = await app.api.json("/detokenize", { model, tokens: known });
    // Its own tokens may be others, since each was chosen by itself.
    const before = await tokenize(app.api, model, prompt, { special: false });
    const { ids, alone } = await tokenizeAfter(app.api, model, { text: prompt, ids: before.ids }, text, { special: false });
    if (alone) app.notify("What you typed is divided alone, since its first letters would change the last token.");
    return ids;
  }

  function takeBack() {
    const count = taken.pop() ?? 0;
    stream.positions.splice(stream.positions.length - count, count);
    stream.finishReason = null;
    open(run, stream);
    ask();
  }

  function show(text) {
    status.textContent = text;
    next.disabled = seen === null;
    undo.disabled = taken.length === 0 || stream.positions.length <= floor;
    list.replaceChildren(...(seen === null ? [] : seen.candidates.map(candidateItem)));
    if (seen !== null) next.textContent = `Take the drawn one: ${label(seen.token, run.pieces)}`;
  }

  function candidateItem({ token, before, after }) {
    const bar = element("span", { class: "share-bar" });
    bar.style.setProperty("--share", String(before));
    const drawn = token === seen.token;
    const facts = [`model ${percent(before)}`, after === before ? null : `final ${percent(after)}`, drawn ? "drawn" : null];
    return element(
      "li",
      {},
      element(
        "button",
        { type: "button", class: `plain candidate ${drawn ? "drawn" : ""}`, "data-token-id": token },
        element("bdi", { class: "mono", text: label(token, run.pieces) }),
        bar,
        element("span", { class: "dim small number", text: facts.filter((fact) => fact !== null).join(" · ") }),
      ),
    );
  }

  /** Ends the steps. A run without a step is removed. */
  function close() {
    asking?.abort();
    asking = null;
    if (place.hidden) return;
    place.hidden = true;
    if (taken.length === 0) {
      app.runs.remove(run);
      return;
    }
    keep();
  }

  /** Keeps the text so far, if a step was taken: the page may be left at any time. */
  function keep() {
    run.lines = taken.length === 0 ? [] : givenLines(header, run, stream);
    app.runs.add(run);
  }

  /** Closes the panel; where no step was taken, the text is shown that it began at. */
  function leave() {
    const parent = run.parent === null || taken.length > 0 ? undefined : app.runs.get(run.parent.run);
    close();
    if (parent !== undefined) open(parent);
  }

  return {
    begin,
    goOn,
    close,
    get run() {
      return place.hidden ? null : run;
    },
  };
}
