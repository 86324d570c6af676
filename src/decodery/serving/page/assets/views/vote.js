// The view in which a person says which of two answers is better, without knowing which setting wrote which.

import { AnswerError, answerPair } from "../core/answer_pair.js";
import { ConnectionError } from "../core/api.js";
import { element } from "../core/dom.js";
import { KeptVotes } from "../core/kept_votes.js";
import { newId } from "../core/run.js";
import { orderOf, voteOf } from "../core/votes.js";
import { Ballot } from "../parts/ballot.js";
import { VoteSetting } from "../parts/vote_setting.js";
import { mountTally } from "../parts/vote_tally.js";

const FIRST = [{ temperature: 0 }, { temperature: 0.8, top_p: 0.95 }];
const TITLES = ["One setting", "The other setting"];
const EXAMPLES = "Once upon a time\nThe best way to learn a language is\nIt was a dark night, and the lighthouse";
const MOST_BYTES = 1_000_000;

export const view = { name: "vote", title: "Vote", mount };

function mount(place, app) {
  const vote = new VoteView(place, app);
  return { show: (args) => vote.show(args), hide() {} };
}

class VoteView {
  #app;
  #parts = layout();
  #ballot;
  #votes = new KeptVotes();
  #settings = [];
  #described;
  #asking = new AbortController();
  /** What is voted on: {prompts, place, chat, settings}; null before the start. */
  #series = null;
  /** The runs of A and B, once they have ended. */
  #runs = [];

  constructor(place, app) {
    this.#app = app;
    const { form, load, file, ballot, tally } = this.#parts;
    place.append(...this.#parts.all);
    this.#ballot = new Ballot(ballot, {
      next: () => this.#next(),
      retry: () => this.#ask(),
      stop: () => this.#stop(),
      look: (answer) => this.#look(answer),
    });
    this.#votes.addEventListener("trouble", ({ detail }) => app.notify(detail, "error"));
    mountTally(tally, app, this.#votes);
    this.#votes.load();
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#start();
    });
    load.addEventListener("click", () => file.click());
    file.addEventListener("change", () => this.#load());
    app.models.addEventListener("change", () => this.#listModels());
  }

  /** Shows the view; with `settings`, two {model, params}, and a `prompt` it offers to vote on those. */
  async show({ prompt, settings, length } = {}) {
    this.#described ??= this.#describe();
    await this.#described;
    if (settings === undefined) return;
    const { prompts, setup } = this.#parts;
    prompts.value = prompt.replaceAll("\n", " ");
    this.#parts.length.value = length;
    this.#settings.forEach((one, i) => one.set(settings[i]));
    setup.open = true;
  }

  async #describe() {
    const described = await fetch("assets/parameters.json").then((answer) => answer.json());
    this.#settings = TITLES.map((title, i) => new VoteSetting(`vote-${i + 1}`, title, described, FIRST[i]));
    this.#parts.settings.append(...this.#settings.map((one) => one.element));
    this.#listModels();
  }

  #listModels() {
    for (const setting of this.#settings) setting.listModels(this.#app.models);
  }

  /** Takes the prompts of a file, one on each line. */
  async #load() {
    const { file, prompts } = this.#parts;
    const [chosen] = file.files;
    file.value = "";
    if (chosen === undefined) return;
    if (chosen.size > MOST_BYTES) this.#app.notify(`The list is larger than ${MOST_BYTES / 1e6} MB.`, "error");
    else prompts.value = (await chosen.text()).trim();
  }

  /** Begins with the first prompt. What is changed in the form later holds from the next start. */
  #start() {
    const { prompts, length, kind, setup, wrong } = this.#parts;
    const lines = prompts.value.split("\n").map((line) => line.replace(/\r$/, "")).filter((line) => line.trim() !== "");
    const most = Number(length.value);
    const settings = this.#settings.map((setting) => setting.value(most > 0 ? { max_tokens: most } : {}));
    const fault = faultOf(lines, settings);
    wrong.textContent = fault ?? "";
    wrong.hidden = fault === null;
    if (fault !== null) return;
    this.#series = { prompts: lines, place: 0, chat: kind.value === "chat", settings };
    setup.open = false;
    this.#ask();
  }

  get #more() {
    return this.#series.place + 1 < this.#series.prompts.length;
  }

  #next() {
    if (!this.#more) {
      this.#ballot.showEnd("These were all prompts.");
      return;
    }
    this.#series.place += 1;
    this.#ask();
  }

  #stop() {
    this.#asking.abort();
    this.#ballot.showEnd("Stopped.");
  }

  /** Asks for both answers to the prompt, in an order that is drawn for each prompt, and shows them together. */
  async #ask() {
    this.#asking.abort();
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    const { prompts, place, chat, settings } = this.#series;
    const prompt = prompts[place];
    for (const setting of this.#settings) setting.showError(null);
    this.#ballot.showWriting(prompts.length === 1 ? "Prompt" : `Prompt ${place + 1} of ${prompts.length}`, prompt);
    const swapped = crypto.getRandomValues(new Uint8Array(1))[0] % 2 === 1;
    try {
      const runs = await answerPair(this.#app.api, { prompt, chat, settings }, signal);
      if (signal.aborted) return;
      const places = swapped ? [1, 0] : [0, 1];
      this.#runs = places.map((one) => runs[one]);
      this.#ballot.showAnswers(this.#runs.map(textOf), (choice) => this.#vote(choice, places));
    } catch (error) {
      if (!signal.aborted) this.#showFault(error);
    }
  }

  #showFault(error) {
    if (error instanceof AnswerError) {
      const setting = this.#settings[error.place];
      setting.showError(error.message);
      this.#ballot.showFault(`${TITLES[error.place]} gave no answer: ${error.message}`, this.#more);
      return;
    }
    this.#ballot.showFault(error.message, this.#more);
    if (!(error instanceof ConnectionError)) throw error;
  }

  /** Counts a vote. `places` are the places of the settings that wrote A and B. */
  #vote(choice, places) {
    const { prompts, place, chat, settings } = this.#series;
    const shown = places.map((one, i) => ({ setting: { ...settings[one], params: { ...settings[one].params, seed: this.#runs[i].seed } }, text: textOf(this.#runs[i]) }));
    const straight = orderOf(shown[0].setting, shown[1].setting) < 0;
    const [one, other] = straight ? shown : [...shown].reverse();
    const sides = straight ? { first: "one", second: "other" } : { first: "other", second: "one" };
    this.#votes.add([
      voteOf({
        id: newId(),
        question: prompts[place],
        one: one.text,
        other: other.text,
        vote: sides[choice] ?? choice,
        shown_first: sides.first,
        settings: { one: one.setting, other: other.setting },
        chat,
        created: Date.now(),
      }),
    ]);
    this.#ballot.showNames(choice, shown.map(({ setting }) => setting), this.#more);
  }

  /** Opens an answer in the view that writes, where its tokens are explained. */
  #look(answer) {
    const run = this.#runs[answer];
    if (this.#app.runs.get(run.id) === undefined) this.#app.runs.add(run);
    this.#app.open("write", { run: run.id });
  }
}

function textOf(run) {
  return run.streams[0]?.text ?? "";
}

function faultOf(prompts, settings) {
  if (prompts.length === 0) return "Write a prompt first, or several, one on each line.";
  if (settings.some(({ model }) => model === "")) return "The server has no model that writes texts yet.";
  if (orderOf(...settings) === 0) return "Both settings are the same: change a parameter of one.";
  return null;
}

function layout() {
  const prompts = element("textarea", { id: "vote-prompts", rows: 4, value: EXAMPLES, spellcheck: "false" });
  const file = element("input", { type: "file", accept: ".txt,text/plain", hidden: true, "aria-label": "A list of prompts" });
  const load = element("button", { type: "button", text: "Load a list…" });
  const kind = element("select", { id: "vote-kind" });
  kind.append(new Option("texts to go on from", "text"), new Option("messages to answer", "chat"));
  const length = element("input", { id: "vote-length", type: "text", inputmode: "numeric", pattern: "[0-9]*", maxlength: 6, title: "A whole number", autocomplete: "off", value: "60" });
  const wrong = element("p", { class: "wrong", role: "alert", hidden: true });
  const field = (input, text) => element("div", { class: "short" }, element("label", { for: input.id, class: "small dim", text }), input);
  const settings = element("div", { class: "settings" });
  const form = element(
    "form",
    {},
    element("label", { for: prompts.id, class: "small dim", text: "Prompts, one on each line" }),
    prompts,
    element("div", { class: "row bottom" }, field(kind, "They are"), field(length, "Longest answer, in tokens"), load, file, element("span", { class: "spread" })),
    settings,
    wrong,
    element("div", { class: "row end" }, element("button", { type: "submit", class: "primary", text: "Start" })),
  );
  const setup = element("details", { class: "sheet setup", open: true }, element("summary", { text: "Prompts and settings" }), form);
  const ballot = element("section", { class: "sheet ballot", "aria-label": "Ballot", hidden: true });
  const tally = element("section", { class: "sheet", "aria-label": "Tally" });
  const title = element("h2", { text: "Blind vote" });
  const lead = element("p", {
    class: "lead",
    text: "Two settings answer each prompt. You see the answers as A and B, in an order that is drawn anew each time, and say which is better. Only then are the settings named.",
  });
  return { all: [title, lead, setup, ballot, tally], form, prompts, file, load, kind, length, settings, wrong, setup, ballot, tally };
}
