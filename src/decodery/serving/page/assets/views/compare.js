// The view in which two to four ways to decode go on from one prompt, side by side.

import { Brancher } from "../core/brancher.js";
import { element } from "../core/dom.js";
import { bytesOf, commonTokens, idsOf, partings } from "../core/partings.js";
import { newSeed } from "../core/runs.js";
import { label } from "../core/spelling.js";
import { CompareColumn } from "../parts/compare_column.js";
import { mountInspector } from "../parts/inspector.js";

const MOST = 4;
const LEAST = 2;
const EXAMPLE = "Once upon a time";
const FIRST = [{ temperature: 0 }, { temperature: 0.8, top_p: 0.95 }];
const FURTHER = [{ strategy: { type: "beam_search", num_beams: 4 } }, { strategy: { type: "contrastive_search", top_k: 4, penalty_alpha: 0.6 } }];
// A whole number that JavaScript holds exactly.
const NUMBER = { inputmode: "numeric", pattern: "[0-9]*", maxlength: 15, title: "A whole number", autocomplete: "off" };
// More partings than these say little.
const TOLD = 6;

export const view = { name: "compare", title: "Compare", mount };

function mount(place, app) {
  const compare = new Compare(place, app);
  return { show: (args) => compare.show(args), hide() {} };
}

class Compare {
  #app;
  #parts;
  #columns = [];
  #made = 0;
  #described;

  constructor(place, app) {
    this.#app = app;
    this.#parts = layout();
    place.append(...this.#parts.all);
    const { form, prompt, stop, add, vote } = this.#parts;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#run();
    });
    prompt.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    stop.addEventListener("click", () => this.#runs().forEach((run) => app.runs.stop(run)));
    add.addEventListener("click", () => this.#add(FURTHER[this.#columns.length - LEAST] ?? {}));
    vote.addEventListener("click", () => this.#vote());
    this.#inspect(place);
    app.models.addEventListener("change", () => this.#columns.forEach((column) => column.listModels(app.models)));
  }

  /** Shows the token of a column that the reader opens; a branch from it is written in the view "Write". */
  #inspect(place) {
    const { token, columns } = this.#parts;
    const inspector = mountInspector(token, this.#app);
    columns.addEventListener("position", ({ detail: { run, stream, index, kind } }) => {
      if (kind === "hover") return;
      token.hidden = false;
      inspector.show(run, stream, index);
      if (kind === "click") token.scrollIntoView({ block: "nearest" });
    });
    const brancher = new Brancher(this.#app);
    place.addEventListener("branch", ({ detail }) => brancher.branch(detail));
  }

  /** Shows the view; with `prompt` and `columns`, each {model, params}, it runs them. */
  async show({ prompt, columns } = {}) {
    if (this.#described === undefined) {
      this.#described = fetch("assets/parameters.json").then((answer) => answer.json());
      const described = await this.#described;
      this.#described = described;
      for (const params of FIRST) this.#add(params);
    }
    await this.#described;
    if (columns === undefined) return;
    this.#parts.prompt.value = prompt;
    while (this.#columns.length > 0) this.#drop(this.#columns[0]);
    for (const { model, params } of columns.slice(0, MOST)) this.#add(params, model);
    this.#parts.length.value = columns[0].params.max_tokens ?? this.#parts.length.value;
    this.#parts.seed.value = columns[0].params.seed ?? "";
    this.#run();
  }

  #add(params, model) {
    this.#made += 1;
    const column = new CompareColumn(`compare-${this.#made}`, this.#app, this.#described);
    column.params = params;
    if (model !== undefined) column.model = model;
    column.remove.addEventListener("click", () => this.#drop(column));
    column.write.addEventListener("click", () => this.#goOn(column));
    this.#columns.push(column);
    this.#parts.columns.append(column.element);
    this.#named();
  }

  #drop(column) {
    if (column.run !== null) this.#app.runs.stop(column.run);
    column.close();
    column.element.remove();
    this.#columns = this.#columns.filter((one) => one !== column);
    this.#named();
    this.#compare();
  }

  #named() {
    this.#columns.forEach((column, i) => {
      column.setName("ABCD"[i]);
      column.remove.disabled = this.#columns.length <= LEAST;
    });
    this.#parts.add.disabled = this.#columns.length >= MOST;
  }

  #runs() {
    return this.#columns.map(({ run }) => run).filter((run) => run !== null);
  }

  /** Returns the parameters of a column, with those that all columns share. */
  #paramsOf(column, seed) {
    const length = Number(this.#parts.length.value);
    return { ...column.params, ...(length > 0 ? { max_tokens: length } : {}), seed };
  }

  /** Starts all columns at once. The server runs those of a model in one batch. */
  #run() {
    const prompt = this.#parts.prompt.value;
    const given = this.#parts.seed.value.trim();
    const seed = given === "" ? newSeed() : Number(given);
    this.#runs().forEach((run) => this.#app.runs.stop(run));
    for (const column of this.#columns) {
      const model = column.model || this.#app.models.current;
      // The log-probabilities of chosen tokens, which beams tell in no other way.
      const params = { logprobs: 0, ...this.#paramsOf(column, seed) };
      const requests = [{ prompt, params, title: `${column.name}: ${prompt}` }];
      const [run] = this.#app.runs.start({ model, requests, view: view.name });
      column.show(run, () => this.#compare());
    }
    this.#compare();
  }

  #compare() {
    const running = this.#runs().some((run) => !run.ended);
    this.#parts.stop.hidden = !running;
    const columns = this.#columns.filter(({ run }) => run !== null);
    if (columns.length < LEAST) {
      showSentences(this.#parts.told, []);
      return;
    }
    const streams = columns.map(({ stream }) => stream);
    const sameModel = new Set(columns.map(({ run }) => run.model)).size === 1;
    const sequences = streams.map((stream, i) => (sameModel ? idsOf(stream) : bytesOf(stream, columns[i].run.pieces)));
    const found = partings(sequences);
    const common = commonTokens(sequences, found);
    columns.forEach((column, i) => {
      const own = found.filter(({ members }) => members.includes(i)).map(({ unit }) => sequences[i].tokenOf(unit));
      column.mark(common[i], [...new Set(own)]);
    });
    this.#tell(columns, sequences, found);
  }

  #tell(columns, sequences, found) {
    const sentences = found.slice(0, TOLD).map((parting) => sentenceOf(parting, columns, sequences));
    if (found.length === 0 && columns.every(({ run }) => run.ended)) sentences.push(alike(columns));
    showSentences(this.#parts.told, sentences);
  }

  /** Opens the view in which one votes on the texts of the first two columns without knowing which is which. */
  #vote() {
    const { prompt, length } = this.#parts;
    const settings = this.#columns.slice(0, 2).map(({ model, params }) => ({ model, params }));
    this.#app.open("vote", { prompt: prompt.value, length: length.value, settings });
  }

  #goOn(column) {
    const { prompt, seed } = this.#parts;
    this.#app.models.choose(column.model || this.#app.models.current);
    const own = column.run?.seed ?? (seed.value.trim() === "" ? undefined : Number(seed.value));
    this.#app.open("write", { prompt: prompt.value, params: this.#paramsOf(column, own) });
  }
}

/** Returns "A and B part at token 12: A goes on with “ was”, B with “ is”", with the tokens as labels. */
function sentenceOf({ members, unit, groups }, columns, sequences) {
  const names = listed(members.map((i) => columns[i].name));
  const places = new Set(members.map((i) => sequences[i].tokenOf(unit)));
  // Different tokenizers may have come to different tokens at the same byte.
  const place = places.size === 1 ? `token ${[...places][0] + 1}` : `byte ${unit + 1} of the text`;
  const parts = [`${names} part at ${place}: `];
  groups.forEach((group, i) => {
    const token = columns[group[0]].stream.tokens[sequences[group[0]].tokenOf(unit)];
    const who = listed(group.map((one) => columns[one].name));
    if (i > 0) parts.push(", ");
    if (token === undefined) parts.push(`${who} end${group.length === 1 ? "s" : ""}`);
    else parts.push(`${who} ${group.length === 1 ? "has" : "have"} `, element("bdi", { class: "token-label", text: label(token, columns[group[0]].run.pieces) }));
  });
  return parts;
}

/** Shows sentences in a list. Those that are there already stay, so that a screen reader reads only what is new. */
function showSentences(list, sentences) {
  sentences.forEach((parts, i) => {
    const item = element("li", {}, ...parts);
    if (i >= list.children.length) list.append(item);
    else if (!list.children[i].isEqualNode(item)) list.children[i].replaceChildren(...item.childNodes);
  });
  while (list.children.length > sentences.length) list.lastElementChild.remove();
}

function alike(columns) {
  const names = listed(columns.map(({ name }) => name));
  return columns.every(({ run }) => run.state === "done") ? [`${names} are the same.`] : [`${names} are the same as far as they came.`];
}

function listed(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

function layout() {
  const prompt = element("textarea", { id: "compare-prompt", rows: 2, value: EXAMPLE });
  const length = element("input", { id: "compare-length", type: "text", ...NUMBER, value: "60" });
  const seed = element("input", { id: "compare-seed", type: "text", ...NUMBER, value: "7", placeholder: "a new one" });
  const stop = element("button", { type: "button", text: "Stop", hidden: true });
  const add = element("button", { type: "button", text: "Add a column" });
  const vote = element("button", { type: "button", text: "Vote blind on A and B" });
  const field = (input, text) => element("div", { class: "short" }, element("label", { for: input.id, class: "small dim", text }), input);
  const form = element(
    "form",
    { class: "sheet" },
    element("label", { for: "compare-prompt", class: "small dim", text: "Prompt for all columns" }),
    prompt,
    element("div", { class: "row bottom" }, field(length, "Longest text, in tokens"), field(seed, "Seed"), element("span", { class: "spread" }), add, vote, stop, element("button", { type: "submit", class: "primary", text: "Run" })),
  );
  const told = element("ul");
  const status = element("div", { class: "told", role: "status", "aria-label": "Where the texts part" }, told);
  const columns = element("div", { class: "columns" });
  const token = element("section", { class: "sheet opened-token", "aria-label": "Token", hidden: true });
  const title = element("h2", { class: "unseen", text: "Compare" });
  return { all: [title, form, status, columns, token], form, prompt, length, seed, stop, add, vote, told, columns, token };
}
