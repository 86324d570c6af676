// The view in which one sees what each layer does with a token: where its heads look, and what it would have said.

import { element } from "../core/dom.js";
import { percent } from "../core/figures.js";
import { headThatLooksBack, meanOf, MOST_TOKENS, viewLayer } from "../core/layer_views.js";
import { Position, Run } from "../core/run.js";
import { label } from "../core/spelling.js";
import { piecesOf, tokenize } from "../core/tokenizing.js";
import { wellFormed } from "../core/utf8.js";
import { headTable, shade } from "../parts/head_table.js";
import { layerPredictions } from "../parts/layer_predictions.js";
import { renderTokens } from "../parts/token_text.js";

const EXAMPLE = { text: "The cat sat on the mat because it was tired.", word: " it" };
// Heads that look for a pronoun's noun are often about here.
const FIRST_LAYER = 0.45;
const WAIT_MS = 120;
// So dark is the token with all attention; its text stays readable.
const DARKEST = 55;

export const view = { name: "layers", title: "Layers", mount };

function mount(place, app) {
  const layers = new LayersView(place, app);
  return { show: (args) => layers.show(args), hide() {} };
}

class LayersView {
  #app;
  #parts;
  /** The model that was asked last. */
  #asked = null;
  #model = null;
  #run = new Run();
  #ids = [];
  #rendered = null;
  #place = 0;
  #layer = null;
  /** The head that is shown, from 0; null for the mean. Undefined until one is chosen. */
  #head;
  #view = null;
  /** Place and layer -> what the server told. */
  #known = new Map();
  #controller = new AbortController();
  #waiting = null;

  constructor(place, app) {
    this.#app = app;
    this.#parts = layout();
    place.append(...this.#parts.all);
    const { form, text, tokens, layer, mean, heads, predictions } = this.#parts;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#begin(text.value, (ids) => ids.length - 1);
    });
    text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    tokens.addEventListener("position", ({ detail: { index, kind } }) => kind !== "hover" && this.#choose(index));
    layer.addEventListener("input", () => this.#take(Number(layer.value)));
    predictions.addEventListener("layer", ({ detail }) => this.#take(detail.layer));
    heads.addEventListener("head", ({ detail }) => this.#takeHead(detail.head));
    mean.addEventListener("click", () => this.#takeHead(null));
    app.models.addEventListener("change", () => this.#refresh());
  }

  /** Shows the view; with `ids` and `place` it looks at a token of these ids, with `text` alone at its last one. */
  show({ ids, text, place } = {}) {
    if (ids !== undefined) {
      this.#parts.text.value = text ?? "";
      this.#begin(null, () => place, ids);
    } else if (text !== undefined) {
      this.#parts.text.value = text;
      this.#begin(text, (read) => read.length - 1);
    } else this.#refresh();
  }

  /** Looks at the example when the view opens first, and at the text anew when another model is chosen. */
  #refresh() {
    const { current } = this.#app.models;
    if (current === null || current === this.#asked || this.#parts.text.closest("[hidden]") !== null) return;
    if (this.#asked === null) this.#begin(EXAMPLE.text, (ids, pieces) => placeOf(EXAMPLE.word, ids, pieces));
    else this.#begin(this.#parts.text.value, (ids) => ids.length - 1);
  }

  /** Reads a text, or `ids`, and shows the token at the place that `choose` returns. */
  async #begin(text, choose, ids = null) {
    this.#controller.abort();
    this.#controller = new AbortController();
    const { signal } = this.#controller;
    const model = this.#app.models.current;
    this.#asked = model;
    await this.#attempt(signal, async () => {
      const [{ layers }, read] = await Promise.all([this.#app.models.describe(model), this.#read(model, text, ids, signal)]);
      if (signal.aborted) return;
      if (read.ids.length === 0) throw new Error("Write a text first.");
      if (model !== this.#model) this.#layer = null;
      this.#model = model;
      this.#layer ??= Math.max(1, Math.round(layers * FIRST_LAYER));
      this.#parts.layer.max = layers;
      this.#known.clear();
      this.#ids = read.ids.slice(0, MOST_TOKENS);
      this.#parts.note.hidden = read.ids.length <= MOST_TOKENS;
      this.#showText(read.pieces);
      this.#choose(Math.min(Math.max(0, choose(this.#ids, read.pieces)), this.#ids.length - 1));
    });
  }

  #read(model, text, ids, signal) {
    if (ids === null) return tokenize(this.#app.api, model, wellFormed(text), { signal });
    return piecesOf(this.#app.api, model, ids, { signal });
  }

  #showText(pieces) {
    this.#rendered?.close();
    this.#run = new Run();
    this.#run.pieces = new Map(pieces);
    this.#run.stream(0).positions = this.#ids.map((id) => new Position(id));
    this.#rendered = renderTokens(this.#parts.tokens, this.#run, this.#run.stream(0), { colour: "none" });
    // Long texts come in several frames.
    this.#run.addEventListener("change", () => this.#colour());
  }

  #choose(place) {
    this.#place = place;
    this.#rendered.mark(place);
    this.#soon();
  }

  #take(layer) {
    this.#layer = layer;
    this.#parts.layer.value = String(layer);
    this.#soon();
  }

  #takeHead(head) {
    this.#head = head;
    if (this.#view !== null) this.#showAttention();
  }

  /** Asks after a while, so that a slider that moves and keys that are held ask once. */
  #soon() {
    const known = this.#known.get(this.#key);
    clearTimeout(this.#waiting);
    this.#controller.abort();
    this.#controller = new AbortController();
    const { signal } = this.#controller;
    this.#parts.layerName.textContent = `Layer ${this.#layer} of ${this.#parts.layer.max}`;
    if (known !== undefined) this.#show(known);
    else this.#waiting = setTimeout(() => this.#ask(signal), WAIT_MS);
  }

  get #key() {
    return `${this.#place}|${this.#layer}`;
  }

  #ask(signal) {
    const key = this.#key;
    this.#parts.result.dataset.state = "waiting";
    return this.#attempt(signal, async () => {
      const found = await viewLayer(this.#app.api, this.#model, this.#ids.slice(0, this.#place + 1), this.#layer, signal);
      this.#known.set(key, found);
      if (!signal.aborted) this.#show(found);
    });
  }

  /** Does what may fail; an error is shown, unless something newer has begun. */
  async #attempt(signal, work) {
    const { wrong, result } = this.#parts;
    try {
      await work();
      if (!signal.aborted) wrong.hidden = true;
    } catch (error) {
      if (signal.aborted) return;
      wrong.textContent = error.message;
      wrong.hidden = false;
      result.dataset.state = "failed";
    }
  }

  #show(found) {
    this.#view = found;
    for (const [token, piece] of found.pieces) this.#run.pieces.set(token, piece);
    if (this.#head === undefined || this.#head >= found.shares.length) this.#head = headThatLooksBack(found.shares);
    const { layer, result, predictions, wrong } = this.#parts;
    wrong.hidden = true;
    layer.value = String(found.layer);
    predictions.replaceChildren(layerPredictions(found.predicted, { pieces: this.#run.pieces, layer: found.layer }));
    this.#showAttention();
    result.hidden = false;
    result.dataset.state = "done";
  }

  #showAttention() {
    const { heads, mean, status } = this.#parts;
    const { shares } = this.#view;
    heads.replaceChildren(headTable(shares, { ids: this.#ids, pieces: this.#run.pieces, chosen: this.#head }));
    mean.setAttribute("aria-pressed", String(this.#head === null));
    status.replaceChildren(...this.#sentence());
    this.#colour();
  }

  #sentence() {
    const name = element("bdi", { class: "token-label", text: label(this.#ids[this.#place], this.#run.pieces) });
    const who = this.#head === null ? "all heads together" : `head ${this.#head + 1}`;
    return ["Shown for ", name, ` in layer ${this.#view.layer}: the stronger a token's colour, the more of the attention of ${who} it gets.`];
  }

  /** Colours the tokens by the attention that they get. */
  #colour() {
    if (this.#view === null) return;
    const { shares } = this.#view;
    const given = this.#head === null ? meanOf(shares) : shares[this.#head];
    [...this.#parts.tokens.children].forEach((token, i) => {
      if (i < given.length) token.style.setProperty("background", shade(given[i], DARKEST));
      else token.style.removeProperty("background");
      token.title = i < given.length ? percent(given[i]) : "";
    });
  }
}

/** Returns the place of the first token that is a text; of the last one where there is none. */
function placeOf(text, ids, pieces) {
  const decoder = new TextDecoder();
  const found = ids.findIndex((id) => decoder.decode(pieces.get(id)?.bytes) === text);
  return found < 0 ? ids.length - 1 : found;
}

function layout() {
  const text = element("textarea", { id: "layers-text", rows: 2, value: EXAMPLE.text });
  const form = element(
    "form",
    { class: "sheet" },
    element("label", { for: "layers-text", class: "small dim", text: "Text" }),
    text,
    element("div", { class: "row" }, element("button", { type: "submit", class: "primary", text: "Look" }), element("span", { class: "dim small", text: "or Control+Enter. Then choose a token." })),
  );
  const wrong = element("p", { class: "wrong", role: "alert", hidden: true });
  const note = element("p", { class: "dim small", text: `Only the first ${MOST_TOKENS} tokens are read.`, hidden: true });
  const tokens = element("div", { class: "looked-at", role: "group", "aria-label": "Tokens of the text" });
  const status = element("p", { class: "small dim", role: "status" });
  const layer = element("input", { id: "layer", type: "range", min: 1, max: 1, step: 1 });
  const layerName = element("output", { for: "layer", class: "number" });
  const mean = element("button", { type: "button", "aria-pressed": "false", text: "Mean of the heads" });
  const heads = element("div", {});
  const predictions = element("div", {});
  const attention = element(
    "section",
    { class: "sheet", "aria-labelledby": "attention-title" },
    element("h2", { id: "attention-title", text: "Where it looks" }),
    element("p", { class: "dim small", text: "Each head divides its attention among the tokens up to this one. A head that finds nothing often gives it to the first token." }),
    element("div", { class: "row" }, element("label", { for: "layer", class: "small", text: "Layer" }), layer, layerName, mean),
    heads,
  );
  const lens = element(
    "section",
    { class: "sheet", "aria-labelledby": "lens-title" },
    element("h2", { id: "lens-title", text: "What each layer would have said" }),
    element("p", { class: "dim small", text: "The likeliest tokens after this one, if the model ended after the layer (the logit lens). The last layer's are the model's own; its first choice is marked wherever it appears." }),
    predictions,
  );
  const result = element("div", { class: "layers-result", hidden: true }, attention, lens);
  const shown = element("section", { class: "sheet", "aria-label": "Attention" }, tokens, status, note);
  return { all: [element("h2", { class: "unseen", text: "Layers" }), form, wrong, shown, result], form, text, wrong, note, tokens, status, layer, layerName, mean, heads, predictions, result };
}
