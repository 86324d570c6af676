// Offers a run to others: as code, as a file, as a page; and takes runs from files.

import { ConnectionError, ServerError } from "../core/api.js";
import { element } from "../core/dom.js";
import { ImportError, readRun } from "../core/import_run.js";
import { currentKey } from "../core/key.js";
import { toJson } from "../core/run_json.js";
import { saveFile } from "../core/save_file.js";
import { SnippetError } from "../core/snippet_texts.js";
import { cli, curl, python } from "../core/snippets.js";

const SCHEMA = "/assets/core/run_schema.json";
const FORMS = [
  { name: "curl", write: curl },
  { name: "Python", write: python },
  { name: "command line", write: cli },
];

/** Errors whose message is for the reader; others are faults of the page. */
const TOLD = [SnippetError, ImportError, ServerError];

/** @returns {{show(run: import("../core/run.js").Run): void}} */
export function mountShare(place, app) {
  const menu = new ShareMenu(place, app);
  return { show: (run) => menu.show(run) };
}

class ShareMenu {
  #app;
  #run = null;
  #ofRun;
  #code;
  #file;
  #schema;

  constructor(place, app) {
    this.#app = app;
    // Asked for now, so that files can be opened when the server is gone.
    this.#schema = app.api.json(SCHEMA).catch(() => null);
    const button = (text, click, label = text) => element("button", { type: "button", text, "aria-label": label, on: { click: () => this.#try(click) } });
    const group = (text, ...buttons) => element("div", { class: "row", role: "group", "aria-label": text }, element("span", { class: "kind dim", text }), ...buttons);
    this.#code = element("pre", { class: "code", tabindex: 0, role: "region", "aria-label": "Code of this run", hidden: true });
    this.#ofRun = element(
      "fieldset",
      { disabled: true },
      element("legend", { class: "unseen", text: "Share this run" }),
      group("Copy as", ...FORMS.map(({ name, write }) => button(name, () => this.#copy(name, write), `Copy as ${name}`))),
      group("Save as", button("JSON", () => this.#saveJson(), "Save as JSON"), button("page", () => this.#savePage(), "Save as page")),
    );
    this.#file = element("input", { type: "file", accept: ".json,.html", multiple: true, hidden: true, "aria-label": "Files of runs" });
    this.#file.addEventListener("change", () => this.#try(() => this.#openFiles()));
    const open = button("Open a run from a file…", () => this.#file.click());
    place.classList.add("sharing");
    place.append(element("h2", { text: "Share" }), this.#ofRun, this.#code, element("div", { class: "row" }, open, this.#file));
  }

  show(run) {
    this.#run = run;
    this.#ofRun.disabled = run === null;
    this.#code.hidden = true;
  }

  /** Runs what a button does; what cannot be done is told in one sentence. */
  async #try(action) {
    try {
      await action();
    } catch (error) {
      // The page says it by itself when the server cannot be reached.
      if (error instanceof ConnectionError) return;
      this.#app.notify(error.message, "error");
      if (!TOLD.some((kind) => error instanceof kind)) throw error;
    }
  }

  async #copy(name, write) {
    const run = this.#run;
    const described = await this.#described(run);
    const address = new URL(".", document.baseURI).href.replace(/\/$/, "");
    const code = write(run, { address, keyed: currentKey() !== null, described });
    this.#code.textContent = code;
    this.#code.hidden = false;
    try {
      await navigator.clipboard.writeText(code);
      this.#app.notify(`The run is copied as ${name}.`);
    } catch {
      // The browser forbids it: the reader copies what is selected.
      getSelection().selectAllChildren(this.#code);
      this.#code.focus();
      this.#app.notify("The code is selected: copy it with the keyboard.");
    }
  }

  /** Returns what the server tells of a run's model; null where it has no such model or cannot be reached. */
  async #described(run) {
    if (!this.#app.models.list.includes(run.model)) return null;
    return await this.#app.models.describe(run.model).catch(() => null);
  }

  #saveJson() {
    saveFile(JSON.stringify(toJson(this.#run)), "application/json", `${fileName(this.#run)}.json`);
  }

  async #savePage() {
    const run = this.#run;
    const answer = await this.#app.api.ask("/trace/page", { run: toJson(run) });
    saveFile(await answer.text(), "text/html", `${fileName(run)}.html`);
  }

  async #openFiles() {
    const files = [...this.#file.files];
    this.#file.value = "";
    const schema = (await this.#schema) ?? (await this.#app.api.json(SCHEMA));
    for (const file of files) {
      const run = await readRun(file, schema);
      const taken = this.#app.runs.imported(run);
      this.#app.notify(`“${taken.title || "Untitled"}” is opened.`);
      this.#app.open("write", { run: taken.id });
    }
  }
}

function fileName({ title }) {
  const words = title.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  return ["decodery", ...words].join("-").slice(0, 60);
}
