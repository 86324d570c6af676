// The view in which one sees how surprising a prompt is, and how changing it moves the probability of answers.

import { element } from "../core/dom.js";
import { decimal } from "../core/figures.js";
import { Prompt } from "../core/prompt_variants.js";
import { Position, Run } from "../core/run.js";
import { likeliestAnswer, scoreAnswers, scorePrompt } from "../core/scoring.js";
import { labelOfText } from "../core/spelling.js";
import { tokenizeAfter } from "../core/tokenizing.js";
import { wellFormed } from "../core/utf8.js";
import { answerTable } from "../parts/answer_table.js";
import { showPromptToken } from "../parts/prompt_token.js";
import { renderTokens } from "../parts/token_text.js";

const EXAMPLE = { text: "The doctor said that", answers: [" he", " she"] };
const CANDIDATES = 10;
const ANSWER_TOKENS = 8;

export const view = { name: "prompt", title: "Prompt", mount };

function mount(place, app) {
  const prompt = new PromptView(place, app);
  return { show: (args) => prompt.show(args), hide() {} };
}

class PromptView {
  #app;
  #prompt = null;
  /** The model that was asked last. */
  #asked = null;
  #scores = null;
  #variants = [];
  #answers = [];
  /** The ids of a prompt and an answer -> what the answer's tokens score. */
  #cells = new Map();
  #controller = new AbortController();
  #rendered = null;
  #parts;

  constructor(place, app) {
    this.#app = app;
    this.#parts = layout();
    place.append(...this.#parts.all);
    const { form, text, heat, panel, table, answerForm, answer, own } = this.#parts;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#begin(text.value, null);
    });
    text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    heat.addEventListener("position", ({ detail }) => this.#open(detail.index, detail.kind));
    panel.addEventListener("delete", ({ detail }) => this.#vary(() => this.#replaced(detail.place, "")));
    panel.addEventListener("replace", ({ detail }) => this.#vary(() => this.#replaced(detail.place, detail.text)));
    panel.addEventListener("token", ({ detail }) => this.#vary(() => this.#prompt.withToken(detail.place, detail.token, this.#scores.pieces)));
    table.addEventListener("remove-answer", ({ detail }) => this.#remove(this.#answers, detail.index));
    table.addEventListener("remove-variant", ({ detail }) => this.#remove(this.#variants, detail.index));
    answerForm.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#addAnswer(answer.value);
      answer.value = " ";
    });
    own.addEventListener("click", () => this.#addOwnAnswer());
    app.models.addEventListener("change", () => this.#refresh());
  }

  show({ prompt, answers } = {}) {
    if (prompt !== undefined) {
      this.#parts.text.value = prompt;
      this.#begin(prompt, answers ?? []);
    } else {
      this.#refresh();
    }
  }

  /** Scores the example when the view opens first, and the prompt anew when another model is chosen. */
  #refresh() {
    const { current } = this.#app.models;
    if (current === null || current === this.#asked || this.#parts.text.closest("[hidden]") !== null) return;
    if (this.#asked === null) this.#begin(EXAMPLE.text, EXAMPLE.answers);
    else this.#begin(this.#parts.text.value, null);
  }

  /** Shows a prompt. The `answers` are texts; with null, those that are there stay. */
  async #begin(text, answers) {
    const { status, heat } = this.#parts;
    this.#controller.abort();
    this.#controller = new AbortController();
    const { signal } = this.#controller;
    const model = this.#app.models.current;
    const sameModel = this.#prompt?.model === model;
    this.#asked = model;
    status.textContent = "Scoring …";
    heat.dataset.state = "waiting";
    await this.#attempt(signal, async () => {
      const prompt = await Prompt.ask(this.#app.api, model, text, signal);
      if (prompt.ids.length === 0) throw new Error("Write a prompt first.");
      const scores = await scorePrompt(this.#app.api, model, prompt.ids, { top: CANDIDATES, signal });
      const kept = answers ?? this.#answers.map(({ text: one }) => one);
      const read = await Promise.all(kept.map((one, i) => (sameModel && answers === null && this.#answers[i].own ? this.#answers[i] : this.#answerOf(one, prompt, signal))));
      if (signal.aborted) return;
      this.#answers = read;
      this.#prompt = prompt;
      this.#scores = scores;
      this.#variants = [prompt.asWritten()];
      if (!sameModel) this.#cells.clear();
      this.#showHeat();
      await this.#score(signal);
    });
    if (!signal.aborted) heat.dataset.state = this.#prompt === null ? "failed" : "done";
  }

  /** Does what may fail; an error is shown, unless something newer has begun. */
  async #attempt(signal, work) {
    const { wrong } = this.#parts;
    try {
      await work();
      if (!signal.aborted) wrong.hidden = true;
    } catch (error) {
      if (signal.aborted) return;
      wrong.textContent = error.message;
      wrong.hidden = false;
      this.#parts.status.textContent = "";
    }
  }

  #showHeat() {
    const { heat, panel, status } = this.#parts;
    this.#rendered?.close();
    const run = new Run();
    run.pieces = new Map([...this.#prompt.pieces, ...this.#scores.pieces]);
    run.stream(0).positions = this.#prompt.ids.map((id, i) => new Position(id, choiceOf(this.#scores.logprobs[i])));
    this.#rendered = renderTokens(heat, run, run.stream(0), { colour: "surprise" });
    panel.replaceChildren(element("p", { class: "dim", text: "Point at a token to see what else was likely there. Click it, or press Enter, to keep it." }));
    const scored = this.#scores.logprobs.filter((one) => one !== null);
    const bits = scored.reduce((sum, { logprob }) => sum - logprob, 0) / Math.LN2 / Math.max(scored.length, 1);
    status.textContent = `${this.#prompt.ids.length} tokens, ${decimal(bits)} bits of surprise each`;
  }

  #open(index, kind) {
    // A token that was clicked stays open while the pointer moves to its panel.
    if (kind === "hover" && this.#parts.panel.dataset.kept === "true") return;
    this.#parts.panel.dataset.kept = String(kind === "click");
    showPromptToken(this.#parts.panel, this.#prompt, this.#scores, index);
  }

  #replaced(place, text) {
    return this.#prompt.replaced(this.#app.api, this.#prompt.word(place), text, this.#controller.signal);
  }

  #vary(make) {
    const { signal } = this.#controller;
    return this.#attempt(signal, async () => {
      const variant = await make();
      const key = String(variant.ids);
      if (this.#variants.every(({ ids }) => String(ids) !== key)) this.#variants.push(variant);
      await this.#score(signal);
    });
  }

  async #answerOf(text, prompt, signal) {
    const read = wellFormed(text);
    const { ids, pieces, alone } = await tokenizeAfter(this.#app.api, prompt.model, prompt, read, { signal });
    if (ids.length === 0) throw new Error("An answer needs a token.");
    return { ids, pieces, text: read, alone };
  }

  #addAnswer(text) {
    const { signal } = this.#controller;
    return this.#attempt(signal, async () => this.#keep(await this.#answerOf(text, this.#prompt, signal), signal));
  }

  #addOwnAnswer() {
    const { signal } = this.#controller;
    return this.#attempt(signal, async () => {
      const { ids, pieces } = await likeliestAnswer(this.#app.api, this.#prompt.model, this.#prompt.ids, ANSWER_TOKENS, { signal });
      const bytes = ids.flatMap((id) => [...pieces.get(id).bytes]);
      await this.#keep({ ids, pieces, text: new TextDecoder().decode(Uint8Array.from(bytes)), own: true }, signal);
    });
  }

  async #keep(answer, signal) {
    const key = String(answer.ids);
    if (this.#answers.every(({ ids }) => String(ids) !== key)) this.#answers.push(answer);
    await this.#score(signal);
  }

  #remove(list, index) {
    list.splice(index, 1);
    this.#showTable();
  }

  /** Asks for what is not known of the table, in one batch, and shows it. */
  async #score(signal) {
    this.#showTable();
    const missing = [];
    for (const { ids: prompt } of this.#variants) {
      for (const { ids: answer } of this.#answers) {
        if (this.#cells.has(keyOf(prompt, answer))) continue;
        if (prompt.length === 0) this.#cells.set(keyOf(prompt, answer), { error: "nothing is before it" });
        else missing.push({ prompt, answer });
      }
    }
    if (missing.length > 0) {
      const found = await scoreAnswers(this.#app.api, this.#prompt.model, missing, { signal });
      missing.forEach(({ prompt, answer }, i) => this.#cells.set(keyOf(prompt, answer), found[i]));
    }
    if (!signal.aborted) this.#showTable();
  }

  #showTable() {
    const { table, none, divided } = this.#parts;
    const alone = this.#answers.filter((answer) => answer.alone).map(({ text }) => labelOfText(text));
    divided.textContent = alone.length === 0 ? "" : `Divided alone, since its first letters would change the prompt's last token: ${alone.join(", ")}`;
    divided.hidden = alone.length === 0;
    none.hidden = this.#answers.length > 0;
    const cell = ({ ids: prompt }, { ids: answer }) => this.#cells.get(keyOf(prompt, answer));
    table.replaceChildren(answerTable({ variants: this.#variants, answers: this.#answers, cell }));
  }
}

function keyOf(prompt, answer) {
  return `${prompt}|${answer}`;
}

/** Returns a prompt's token in the form of a choice, by which tokens are coloured. */
function choiceOf(scored) {
  if (scored === null) return null;
  const candidates = scored.top.map(([token, logprob]) => ({ token, before: Math.exp(logprob) }));
  return { token: scored.token, before: Math.exp(scored.logprob), candidates };
}

function layout() {
  const text = element("textarea", { id: "heat-text", rows: 3, value: EXAMPLE.text });
  const form = element(
    "form",
    { class: "sheet" },
    element("label", { for: "heat-text", class: "small dim", text: "Prompt" }),
    text,
    element("div", { class: "row" }, element("button", { type: "submit", class: "primary", text: "Score" }), element("span", { class: "dim small", text: "or Control+Enter" })),
  );
  const status = element("p", { class: "number small dim", role: "status" });
  const wrong = element("p", { class: "wrong", role: "alert", hidden: true });
  const heat = element("div", { class: "heat", role: "group", "aria-label": "Tokens of the prompt" });
  const panel = element("div", { class: "sheet token-panel", role: "region", "aria-label": "Token" });
  const answer = element("input", { id: "answer", type: "text", value: " ", autocomplete: "off", spellcheck: "false" });
  const answerForm = element("form", { class: "row" }, element("label", { for: "answer", class: "small", text: "Answer" }), answer, element("button", { type: "submit", text: "Add" }));
  const own = element("button", { type: "button", text: "Add the model's answer" });
  const table = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Probabilities of the answers" });
  const none = element("p", { class: "dim", text: "Add an answer to see how likely it is.", hidden: true });
  const divided = element("p", { class: "dim small", role: "status", hidden: true });
  const answers = element(
    "section",
    { class: "sheet", "aria-labelledby": "answers-title" },
    element("h2", { id: "answers-title", text: "What follows" }),
    element("p", { class: "dim small", text: "Each answer's probability right after each prompt. Change a word above to add a prompt. The answer's tokens stay the same; bars show how probability divides among these answers." }),
    none,
    table,
    divided,
    element("div", { class: "row" }, answerForm, own),
  );
  const tokens = element("section", { class: "sheet", "aria-label": "Surprise" }, heat, status);
  return { all: [element("h2", { class: "unseen", text: "Prompt" }), form, wrong, tokens, panel, answers], form, text, status, wrong, heat, panel, table, none, divided, answerForm, answer, own };
}
