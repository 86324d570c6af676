// Shows one column of a comparison: a model, its parameters, the text that comes of them, and its numbers.

import { element } from "../core/dom.js";
import { count, decimal } from "../core/figures.js";
import { ending, standing } from "../core/run_words.js";
import { numbersOf } from "../core/stream_numbers.js";
import { mountColumnParameters } from "./column_parameters.js";
import { renderTokens } from "./token_text.js";

const SHARED = ["max_tokens", "seed"];

export class CompareColumn {
  /** The run that is shown, or null. */
  run = null;
  #parameters;
  #tokens;
  #rendered = null;
  #model;
  #title;
  #header = element("header", { class: "row" });
  #marked = { common: 0, parted: [] };
  #texts;
  #textField;
  /** Which of the run's texts is shown. */
  #text = 0;

  /**
   * @param {string} key
   * @param {object} app
   * @param {object} described `assets/parameters.json`
   */
  constructor(key, app, described) {
    this.#title = element("h3");
    this.#model = element("select", { id: `${key}-model` });
    this.remove = element("button", { type: "button", class: "plain", "aria-label": "Remove this column", text: "✕" });
    this.write = element("button", { type: "button", text: "Go on in Write" });
    this.modelField = element("div", { class: "field", hidden: true }, element("label", { for: this.#model.id, class: "unseen", text: "Model" }), this.#model);
    this.#texts = element("select", { id: `${key}-text`, on: { change: () => this.#choose(this.#texts.selectedIndex) } });
    this.#textField = element("div", { class: "row", hidden: true }, element("label", { for: this.#texts.id, class: "small dim", text: "Text" }), this.#texts);
    const form = element("div", { class: "column-form" });
    this.#tokens = element("div", { class: "column-text", role: "group", dir: "auto" });
    this.state = element("p", { class: "small dim standing", role: "status" });
    this.wrong = element("p", { class: "wrong", role: "alert", hidden: true });
    this.numbers = element("dl", { class: "column-numbers small number" });
    this.element = element(
      "section",
      { class: "sheet column" },
      this.#header,
      this.modelField,
      form,
      this.#textField,
      this.#tokens,
      this.wrong,
      this.state,
      this.numbers,
      element("div", { class: "row" }, this.write),
    );
    this.#parameters = mountColumnParameters(form, key, described, SHARED);
    this.#header.append(this.#title, this.#parameters.preset, this.remove);
    this.listModels(app.models);
  }

  /** Names the column by a letter. */
  setName(name) {
    this.name = name;
    this.#title.textContent = name;
    this.element.setAttribute("aria-label", `Column ${name}`);
    this.#tokens.setAttribute("aria-label", `Text ${name}`);
    this.remove.setAttribute("aria-label", `Remove column ${name}`);
  }

  listModels(models) {
    const chosen = this.model || models.current;
    this.#model.replaceChildren(...models.list.map((name) => new Option(name, name)));
    this.#model.value = models.list.includes(chosen) ? chosen : (models.current ?? "");
    this.modelField.hidden = models.list.length < 2;
  }

  get model() {
    return this.#model.value;
  }

  set model(name) {
    this.#model.value = name;
  }

  get params() {
    return this.#parameters.value();
  }

  set params(params) {
    this.#parameters.set(params);
  }

  /** Shows a run from now on; `changed` is called after each change of it. */
  show(run, changed) {
    this.close();
    this.run = run;
    this.element.dataset.run = run.id;
    this.#changed = changed;
    this.#text = 0;
    this.#render();
  }

  #close = () => {};
  #changed = () => {};

  /** The text that is shown. */
  get stream() {
    return this.run.stream(this.#text);
  }

  #choose(text) {
    this.close();
    this.#text = text;
    this.#render();
    this.#changed();
  }

  #render() {
    const { run } = this;
    this.#rendered = renderTokens(this.#tokens, run, this.stream, { colour: "none" });
    this.#marked = { common: 0, parted: [] };
    const update = () => {
      this.#update();
      this.#changed();
    };
    // After the listener of the tokens, which adds them.
    run.addEventListener("change", update);
    this.#close = () => run.removeEventListener("change", update);
    this.#update();
  }

  /** Ends the updates. */
  close() {
    this.#close();
    this.#rendered?.close();
  }

  #update() {
    const { run, stream } = this;
    this.element.dataset.state = run.state;
    this.#showTexts();
    this.state.textContent = [standing(run), ending(run, stream)].filter((text) => text !== "").join(" · ");
    this.#showError(run.state === "failed" || run.state === "cut" ? run.error : null);
    this.#showNumbers();
  }

  /** Offers the texts of a run that has several. */
  #showTexts() {
    const { length } = this.run.streams;
    this.#textField.hidden = length < 2;
    if (this.#texts.length !== length) this.#texts.replaceChildren(...this.run.streams.map((_, i) => new Option(`${i + 1} of ${length}`)));
    this.#texts.selectedIndex = this.#text;
  }

  #showError(message) {
    this.wrong.textContent = message ?? "";
    this.wrong.hidden = message === null;
  }

  #showNumbers() {
    const { tokens, logprob, surprise, speed, first } = numbersOf(this.run, this.stream);
    const rows = [
      ["Tokens", count(tokens)],
      ["Mean surprise", surprise === null ? "–" : `${decimal(surprise)} bits`],
      ["Log-probability", logprob === null ? "–" : decimal(logprob)],
      ["Speed in this batch", speed === null ? "–" : `${decimal(speed, speed < 100 ? 1 : 0)} tokens/s`],
      ["First token after", first === null ? "–" : `${decimal(1000 * first, 0)} ms`],
    ];
    this.numbers.replaceChildren(...rows.map(([term, text]) => element("div", {}, element("dt", { text: term }), element("dd", { text }))));
  }

  /** Marks the first `common` tokens as those of all columns, and those at `parted` as the first that differ. */
  mark(common, parted) {
    const { children } = this.#tokens;
    const before = this.#marked;
    // The tokens of a long text come in several frames, after each of which this is called again.
    common = Math.min(common, children.length);
    for (const place of before.parted) if (!parted.includes(place)) children[place]?.classList.remove("parts");
    for (let place = Math.min(common, before.common); place < Math.max(common, before.common); place += 1) {
      children[place]?.classList.toggle("common", place < common);
    }
    for (const place of parted) children[place]?.classList.add("parts");
    this.#marked = { common, parted };
  }
}
