// The view in which one writes a prompt or talks with the model, and reads the answer token by token.

import { Conversation } from "../core/conversation.js";
import { element } from "../core/dom.js";
import { mountComposer } from "../parts/composer.js";
import { followEnd } from "../parts/follow.js";
import { mountLegend } from "../parts/legend.js";
import { mountParameters } from "../parts/parameters.js";
import { runView } from "../parts/run_view.js";
import { mountRunList } from "../parts/run_list.js";
import { mountSidePanel } from "../parts/side_panel.js";
import { PIECES } from "./write_pieces.js";

const DEFAULT_PROMPT = "Once upon a time";
const DEFAULT_PARAMS = { max_tokens: 40, temperature: 0.8, seed: 7 };
const CHAT_TOKENS = 400;
const TABS = [
  { name: "token", title: "Token" },
  { name: "tree", title: "Branches" },
  { name: "parameters", title: "Parameters" },
  { name: "runs", title: "Runs" },
];

export const view = {
  name: "write",
  title: "Write",
  mount(place, app) {
    const write = new Write(place, app);
    return { show: (args) => write.show(args), hide: () => write.hide() };
  },
};

class Write {
  #app;
  #mode = "completion";
  #conversation = new Conversation();
  #views = [];
  #shown = null;
  #chosen = false;
  #visible = false;
  /** The run, stream and index of the token that is open: for pieces that are loaded later. */
  #opened = null;
  #pieces = { token: [], tree: [], run: [], foot: [] };

  constructor(place, app) {
    this.#app = app;
    place.classList.add("write");
    this.#build(place);
    this.#listen(place);
    this.#loadPieces();
    this.#setMode("completion");
    this.#parameters.set(DEFAULT_PARAMS);
  }

  #build(place) {
    this.#log = element("div", { class: "log", id: "log", role: "region", "aria-label": "Text", tabindex: 0 });
    const newest = element("button", { type: "button", class: "newest", text: "To the newest ↓", hidden: true });
    const foot = element("div", { class: "foot" });
    const side = element("aside", { class: "details", "aria-label": "Details" });
    this.#modes = this.#modeSwitch();
    this.#clear = element("button", { type: "button", text: "New chat", hidden: true, on: { click: () => this.#newChat() } });
    const settings = element("button", { type: "button", class: "narrow-only", text: "Parameters", on: { click: () => this.#side.show("parameters") } });
    const head = element("div", { class: "head" }, this.#modes, this.#clear, element("span", { class: "spread" }), settings);
    const main = element("div", { class: "write-main" }, head, element("div", { class: "log-frame" }, this.#log, newest), foot);
    place.append(main, side);
    this.#system = this.#systemField();
    this.#extras = element("div", { class: "extras" });
    foot.append(this.#extras, this.#system);
    this.#composer = mountComposer(foot, this.#app.settings, { send: (text) => this.#send(text), stop: () => this.#stop() });
    this.#side = mountSidePanel(side, TABS);
    this.#parameters = mountParameters(this.#side.panels.parameters, this.#app);
    mountRunList(this.#side.panels.runs, this.#app, (run) => this.#showRun(run));
    this.#empty = element("p", { class: "help", text: "Choose a token of the text to see why it came." });
    this.#side.panels.token.append(this.#empty);
    mountLegend(head, this.#app.settings);
    this.#follow = followEnd(this.#log, newest);
  }

  #log;
  #modes;
  #clear;
  #system;
  #extras;
  #composer;
  #side;
  #parameters;
  #empty;
  #follow;

  #modeSwitch() {
    const option = (mode, title) =>
      element(
        "label",
        { class: "option" },
        element("input", { type: "radio", name: "mode", value: mode, checked: mode === "completion", on: { change: () => this.#setMode(mode) } }),
        title,
      );
    return element("div", { class: "modes", role: "radiogroup", "aria-label": "Mode" }, option("completion", "Completion"), option("chat", "Chat"));
  }

  #systemField() {
    const text = element("textarea", { id: "system", rows: 2, spellcheck: "false", on: { input: () => (this.#conversation.system = text.value) } });
    return element("details", { class: "system", hidden: true }, element("summary", { text: "System message" }), element("label", { for: "system", class: "unseen", text: "System message" }), text);
  }

  #listen(place) {
    const { settings, models } = this.#app;
    place.addEventListener("position", ({ detail }) => this.#openToken(detail));
    place.addEventListener("reveal", () => this.#side.show("parameters"));
    // On the document: the focus may be on nothing, as after a button has gone.
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.#visible) return;
      this.#stop();
      this.#side.close();
    });
    settings.addEventListener("change", ({ detail }) => {
      if (detail === "colour") for (const shown of this.#views) shown.setColour(settings.get("colour"));
    });
    models.addEventListener("change", () => this.#modelChanged());
  }

  async #loadPieces() {
    const places = { token: this.#side.panels.token, tree: this.#side.panels.tree, run: this.#side.panels.runs, foot: this.#extras };
    const asking = {
      text: this.#composer.text,
      params: () => this.#parameters.value(),
      start: (request) => this.#showRun(this.#start({ ...request, title: titleOf(request.prompt) })),
    };
    // All at once: a later piece's heading must not stand without an earlier one's.
    const loaded = await Promise.allSettled(PIECES.map((piece) => piece.load()));
    for (const [i, { value: mount }] of loaded.entries()) {
      const { slot } = PIECES[i];
      const piece = mount?.(places[slot].appendChild(element("div", { class: `piece piece-${slot}` })), this.#app, asking);
      if (piece) this.#pieces[slot].push(piece);
      piece?.setMode?.(this.#mode);
      if (slot !== "token" && this.#shown !== null) piece?.show(this.#shown);
    }
    if (this.#opened !== null) this.#showToken(...this.#opened);
    const failed = loaded.find(({ status }) => status === "rejected");
    if (failed) this.#app.notify(`A part of the page could not be loaded: reload it. (${failed.reason.message})`, "error");
  }

  /** Shows what `app.open("write", args)` asks for: a kept run, or a text to begin at once. */
  async show(args) {
    this.#visible = true;
    if (args.run !== undefined) {
      this.#showRun(this.#app.runs.get(args.run));
    } else if (args.prompt !== undefined) {
      this.#setMode("completion");
      this.#composer.text.value = args.prompt;
      this.#parameters.set({ ...DEFAULT_PARAMS, ...args.params });
      this.#chosen = true;
      this.#complete(args.prompt);
    } else if (this.#shown === null) {
      await this.#app.runs.loaded;
      await this.#begin();
    }
  }

  hide() {
    this.#visible = false;
  }

  /** Shows the newest run of this view; where there is none, the default prompt is decoded. */
  async #begin() {
    const newest = this.#app.runs.list().findLast((run) => run.view === view.name);
    if (newest !== undefined) {
      this.#composer.text.value = newest.prompt ?? "";
      this.#parameters.set(formOf(newest));
      this.#showRun(newest);
      return;
    }
    this.#composer.text.value = DEFAULT_PROMPT;
    if (this.#app.models.current !== null) this.#complete(DEFAULT_PROMPT);
  }

  async #modelChanged() {
    if (this.#app.models.current === null) return;
    await this.#app.runs.loaded;
    if (this.#shown === null && this.#composer.text.value === DEFAULT_PROMPT) this.#complete(DEFAULT_PROMPT);
    try {
      const { has_chat_template: chats } = await this.#app.models.describe();
      const chat = this.#modes.querySelector("[value=chat]");
      chat.disabled = !chats;
      chat.parentElement.title = chats ? "" : "This model has no chat template.";
    } catch {
      // The next answer of the server says what is wrong.
    }
  }

  #setMode(mode) {
    this.#mode = mode;
    this.#modes.querySelector(`[value=${mode}]`).checked = true;
    this.#composer.setMode(mode);
    this.#system.hidden = mode !== "chat";
    this.#clear.hidden = mode !== "chat";
    for (const piece of Object.values(this.#pieces).flat()) piece.setMode?.(mode);
    if (mode === "chat") {
      if (this.#composer.text.value === DEFAULT_PROMPT) this.#composer.text.value = "";
      const params = this.#parameters.value();
      if (params.max_tokens === DEFAULT_PARAMS.max_tokens) this.#parameters.set({ ...params, max_tokens: CHAT_TOKENS });
      this.#showConversation();
    }
  }

  #send(text) {
    if (this.#running !== null || text === "" || !this.#parameters.check()) return;
    this.#parameters.clearErrors();
    if (this.#mode === "chat") {
      if (!this.#conversation.busy) this.#ask(text);
    } else this.#complete(text);
  }

  get #running() {
    return this.#shown !== null && !this.#shown.ended ? this.#shown : null;
  }

  #stop() {
    if (this.#running !== null) this.#app.runs.stop(this.#running);
  }

  #start(request, model = this.#app.models.current) {
    const params = this.#parameters.value();
    const [run] = this.#app.runs.start({ model: model ?? undefined, requests: [{ params, ...request }] });
    return run;
  }

  #complete(text) {
    this.#showRun(this.#start({ prompt: text, title: titleOf(text) }));
  }

  async #ask(text) {
    // The reader may go to another conversation before the reply has ended.
    const conversation = this.#conversation;
    conversation.ask(text);
    this.#composer.text.value = "";
    this.#showMessage("user", text);
    const model = this.#app.models.current;
    conversation.asking = true;
    try {
      const { tokens } = await this.#app.api.json("/tokenize", { model, messages: conversation.forServer() });
      const run = this.#start({ prompt: tokens, title: titleOf(text), messages: conversation.kept() }, model);
      this.#await(conversation, run);
      if (this.#isShown(conversation)) this.#addRun(run, { prompt: false });
    } catch (error) {
      this.#takeBack(conversation, error.message);
    } finally {
      conversation.asking = false;
    }
  }

  #isShown(conversation) {
    return this.#mode === "chat" && this.#conversation === conversation;
  }

  /** Adds the reply to the conversation that asked for it, once it has ended. */
  #await(conversation, run) {
    conversation.pending = run;
    const changed = () => {
      if (!run.ended) return;
      run.removeEventListener("change", changed);
      conversation.pending = null;
      if (run.streams.some(({ positions }) => positions.length > 0)) conversation.reply(run);
      // What started a branch tells why it was refused.
      else if (run.parent === null) this.#takeBack(conversation, run.error ?? "Nothing was answered.");
    };
    run.addEventListener("change", changed);
  }

  /** Nothing was answered: the message goes back into the field, if its conversation is still the current one. */
  #takeBack(conversation, message) {
    const text = conversation.takeBack();
    if (this.#conversation !== conversation) return;
    if (this.#composer.text.value === "") this.#composer.text.value = text;
    if (this.#isShown(conversation)) this.#showConversation();
    this.#app.notify(message, "error");
  }

  #newChat() {
    this.#stop();
    const { system } = this.#conversation;
    this.#conversation = new Conversation();
    this.#conversation.system = system;
    this.#showConversation();
    this.#composer.text.focus();
  }

  #showConversation() {
    this.#clearLog();
    if (this.#conversation.messages.length === 0) {
      this.#log.append(element("p", { class: "help empty", text: "Write a message below. Each reply is shown token by token." }));
    }
    const { messages, pending } = this.#conversation;
    for (const { role, content, run } of messages) {
      const found = run === undefined ? undefined : this.#app.runs.get(run);
      if (found === undefined) this.#showMessage(role, content);
      else this.#append(found, { prompt: false });
    }
    if (pending !== null) this.#append(pending, { prompt: false });
    if (this.#shown !== null) this.#showPieces(this.#shown);
  }

  #showMessage(role, content) {
    this.#log.querySelector(".empty")?.remove();
    this.#log.append(element("article", { class: `message ${role}` }, element("h2", { text: role === "user" ? "You" : "Model" }), element("div", { class: "body", dir: "auto", text: content })));
    this.#follow.start();
  }

  #showRun(run) {
    if (run === undefined) return;
    if (run.messages !== null) {
      if (this.#conversation.pending !== run) this.#goTo(run);
      this.#setMode("chat");
      return;
    }
    this.#setMode("completion");
    this.#clearLog();
    this.#addRun(run, {});
  }

  /** Makes the conversation of a reply the current one. */
  #goTo(run) {
    this.#conversation = Conversation.before(run);
    this.#system.querySelector("textarea").value = this.#conversation.system;
    if (run.ended) this.#conversation.reply(run);
    else this.#await(this.#conversation, run);
  }

  #clearLog() {
    for (const shown of this.#views) shown.close();
    this.#views = [];
    this.#shown = null;
    this.#opened = null;
    this.#log.replaceChildren();
    this.#composer.setRunning(false);
  }

  #addRun(run, options) {
    this.#append(run, options);
    this.#showPieces(run);
  }

  /** Adds a run to the log. The pieces show the last one alone. */
  #append(run, options) {
    this.#shown = run;
    const shown = runView(run, this.#app, { ...options, colour: this.#app.settings.get("colour"), grown: () => this.#grown(run) });
    this.#views.push(shown);
    this.#log.append(shown.element);
    this.#follow.start();
    this.#grown(run);
  }

  #showPieces(run) {
    for (const slot of ["tree", "run", "foot"]) for (const piece of this.#pieces[slot]) piece.show(run);
  }

  #grown(run) {
    this.#follow.grown();
    if (run !== this.#shown) return;
    this.#composer.setRunning(!run.ended);
    if (run.state === "failed" && run.param) this.#parameters.showError(run.param, run.error);
    if (run.state === "done" && !this.#chosen) this.#openSurprising(run);
  }

  /** Opens the most surprising token, so that a first look shows what there is to see of a token. */
  #openSurprising(run) {
    const [stream] = run.streams;
    const choices = stream?.positions.map(({ choice }) => choice?.before ?? 1) ?? [];
    if (choices.length === 0) return;
    const index = choices.indexOf(Math.min(...choices));
    this.#views.at(-1)?.mark(stream.index, index);
    this.#showToken(run, stream, index);
  }

  #openToken({ run, stream, index, kind }) {
    if (kind === "hover" && !this.#app.settings.get("hover")) return;
    this.#chosen = true;
    if (kind !== "hover") {
      this.#side.open("token");
      if (kind === "click") this.#side.show("token");
    }
    this.#showToken(run, stream, index, { preview: kind === "hover" });
  }

  #showToken(run, stream, index, options = {}) {
    this.#opened = [run, stream, index];
    this.#empty.hidden = this.#pieces.token.length > 0;
    for (const piece of this.#pieces.token) piece.show(run, stream, index, options);
  }
}

/** Returns a run's parameters as the form takes them. */
function formOf(run) {
  return { ...run.params, seed: run.seed };
}

function titleOf(text) {
  const words = text.trim().split(/\s+/).join(" ");
  return words.length > 60 ? `${words.slice(0, 60)}…` : words;
}
