// Shows the form of parameters: presets, what is changed, and all others by a search or in groups.

import { element } from "../core/dom.js";
import { lessonOf } from "../core/lessons.js";
import { PRESETS, withPreset } from "../core/presets.js";
import { objectField } from "./object_field.js";
import { fieldFor } from "./parameter_field.js";

/**
 * Mounts the form. Dispatches a bubbling "parameters" from `place` when a value changes.
 * @returns {{value(): object, set(params: object): void, check(): boolean,
 *   showError(param: string, message: string): boolean, clearErrors(): void}}
 *   `value` has the parameters that are set, `check` goes to the first value that cannot be read and returns false,
 *   and `showError` shows the server's error at its field, and returns false if the form has none for it
 */
export function mountParameters(place, app) {
  const form = new Form(place, app);
  form.load().catch((error) => app.notify(error.message, "error"));
  return {
    value: () => ({ ...form.values }),
    set: (params) => form.set(params),
    check: () => form.check(),
    showError: (param, message) => form.showError(param, message),
    clearErrors: () => form.clearErrors(),
  };
}

class Form {
  values = {};
  #place;
  #app;
  #described = { panels: {}, parameters: {}, objects: {} };
  #defaults = {};
  #rows = new Map();
  #search;
  #changed;
  #groups;
  #open = new Set();

  constructor(place, app) {
    this.#place = place;
    this.#app = app;
    this.#search = element("input", { id: "find-parameter", type: "search", autocomplete: "off", placeholder: "temperature, stop …", on: { input: () => this.#arrange() } });
    this.#changed = element("div", { class: "rows" });
    this.#groups = element("div", { class: "groups" });
    place.append(
      this.#presets(),
      element("label", { for: "find-parameter", class: "field-label", text: "Find a parameter" }),
      this.#search,
      this.#changed,
      this.#groups,
    );
    app.models.addEventListener("change", () => this.#loadDefaults());
  }

  async load() {
    const answer = await fetch("assets/parameters.json");
    this.#described = await answer.json();
    this.#arrange();
    await this.#loadDefaults();
  }

  async #loadDefaults() {
    if (this.#app.models.current === null) return;
    try {
      this.#defaults = (await this.#app.models.describe()).default_params;
    } catch {
      // The page says elsewhere that the server does not answer.
      return;
    }
    for (const [name, row] of this.#rows) row.field.setDefault(this.#default(name));
  }

  #default(name) {
    return this.#defaults[name] ?? this.#described.parameters[name].default ?? (name === "strategy" ? "sampling" : undefined);
  }

  set(params) {
    this.values = Object.fromEntries(Object.entries(params).filter(([, value]) => value !== null && value !== undefined));
    for (const [name, row] of this.#rows) this.#refresh(name, row);
    this.#arrange();
    this.#tell();
  }

  check() {
    const wrong = [...this.#rows.values()].find((row) => row.wrong !== null);
    if (wrong === undefined) return true;
    this.#reveal(wrong);
    return false;
  }

  showError(param, message) {
    const [name, ...rest] = param.replace(/^requests\[\d+\]\.params\.?/, "").split(/[.[]/);
    if (!(name in this.#described.parameters)) return false;
    const row = this.#row(name);
    this.#setError(row, message);
    this.#search.value = "";
    this.#open.add(row.panel);
    this.#arrange();
    this.#reveal(row, rest[0]);
    return true;
  }

  clearErrors() {
    for (const row of this.#rows.values()) if (row.wrong === null) this.#setError(row, null);
  }

  #reveal(row, inner) {
    const input = (inner && row.field.errorPlace?.(inner)?.querySelector("input, select, textarea")) || row.field.input;
    this.#place.dispatchEvent(new CustomEvent("reveal", { bubbles: true }));
    input.focus();
  }

  #presets() {
    const buttons = PRESETS.map((preset) =>
      element("button", { type: "button", class: "chip", title: preset.help, text: preset.title, on: { click: () => this.set(withPreset(this.values, preset)) } }),
    );
    return element("div", { class: "chips", role: "group", "aria-label": "Presets" }, ...buttons);
  }

  /** Puts each row where it belongs: among the changed ones, the found ones, or into its group. */
  #arrange() {
    const query = this.#search.value.trim().toLowerCase();
    const names = Object.keys(this.#described.parameters);
    const first = names.filter((name) => (query === "" ? this.#isChanged(name) : this.#matches(name, query)));
    this.#changed.replaceChildren(...first.map((name) => this.#row(name).element));
    if (query !== "" && first.length === 0) this.#changed.append(element("p", { class: "help", text: "No parameter is like this." }));
    this.#groups.hidden = query !== "";
    const shown = new Set(first);
    this.#groups.replaceChildren(...Object.entries(this.#described.panels).map(([panel, all]) => this.#group(panel, all.filter((name) => !shown.has(name)))));
  }

  #isChanged(name) {
    return name in this.values || (this.#rows.get(name)?.wrong ?? null) !== null;
  }

  #matches(name, query) {
    const text = `${name} ${name.replaceAll("_", " ")} ${this.#described.parameters[name].description}`.toLowerCase();
    return query.split(/\s+/).every((word) => text.includes(word));
  }

  /** Returns a group; its rows are built when it is opened. */
  #group(panel, names) {
    const rows = element("div", { class: "rows" });
    const group = element("details", { open: this.#open.has(panel) }, element("summary", { text: panel }), rows);
    const fill = () => {
      if (group.open && rows.childElementCount === 0) rows.append(...names.map((name) => this.#row(name).element));
    };
    group.addEventListener("toggle", () => {
      if (group.open) this.#open.add(panel);
      else this.#open.delete(panel);
      fill();
    });
    fill();
    group.hidden = names.length === 0;
    return group;
  }

  #row(name) {
    if (!this.#rows.has(name)) this.#rows.set(name, this.#newRow(name));
    return this.#rows.get(name);
  }

  #newRow(name) {
    const id = `parameter-${name}`;
    const schema = this.#described.parameters[name];
    const kinds = this.#described.objects[name];
    const enter = (value, error) => this.#enter(name, value, error);
    const field = kinds === undefined ? fieldFor(id, schema, enter) : objectField(id, kinds, enter);
    field.input.setAttribute("aria-describedby", `${id}-help ${id}-error`);
    const reset = element("button", { type: "button", class: "plain reset", "aria-label": `${name}: back to the default`, title: "Back to the default", text: "↺", on: { click: () => this.#reset(name) } });
    const error = element("p", { class: "wrong small", id: `${id}-error`, hidden: true });
    const lesson = element("a", { class: "lesson", text: "learn" });
    const help = element("p", { class: "help", id: `${id}-help` }, `${schema.description} `, lesson);
    const made = element("div", { class: "parameter", "data-parameter": name }, element("label", { for: id, class: "mono", text: name }), field.input, reset, help, error);
    if (field.more) made.append(field.more);
    const panel = Object.entries(this.#described.panels).find(([, names]) => names.includes(name))?.[0];
    const row = { element: made, field, reset, error, lesson, panel, wrong: null };
    field.setDefault(this.#default(name));
    this.#refresh(name, row);
    return row;
  }

  #refresh(name, row) {
    row.wrong = null;
    this.#setError(row, null);
    row.field.show(this.values[name]);
    this.#note(name, row);
  }

  #note(name, row) {
    row.reset.hidden = !this.#isChanged(name);
    const lesson = lessonOf(name, this.values[name]);
    row.lesson.hidden = lesson === null;
    if (lesson !== null) {
      row.lesson.href = `#learn/${lesson}`;
      row.lesson.setAttribute("aria-label", `Learn about ${lesson.replaceAll("-", " ")}`);
    }
  }

  #enter(name, value, error) {
    const row = this.#rows.get(name);
    row.wrong = error;
    this.#setError(row, error);
    if (value === undefined || error !== null) delete this.values[name];
    else this.values[name] = value;
    this.#note(name, row);
    this.#tell();
  }

  #reset(name) {
    const row = this.#rows.get(name);
    delete this.values[name];
    this.#refresh(name, row);
    this.#open.add(row.panel);
    this.#arrange();
    row.field.input.focus();
    this.#tell();
  }

  #setError(row, message) {
    row.error.textContent = message ?? "";
    row.error.hidden = message === null;
    if (message === null) row.field.input.removeAttribute("aria-invalid");
    else row.field.input.setAttribute("aria-invalid", "true");
  }

  #tell() {
    this.#place.dispatchEvent(new CustomEvent("parameters", { bubbles: true, detail: { ...this.values } }));
  }
}
