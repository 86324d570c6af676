// Shows the parameters of one column in one line, which opens to rows of those that are set and a choice of others.

import { element } from "../core/dom.js";
import { PRESETS, withPreset } from "../core/presets.js";
import { objectField } from "./object_field.js";
import { fieldFor } from "./parameter_field.js";

/**
 * Mounts the form in `place`. Dispatches a bubbling "parameters" when a value changes.
 * @param {string} key begins the ids of the fields, so that several forms can be shown
 * @param {{panels: object, parameters: object, objects: object}} described `assets/parameters.json`
 * @param {string[]} [left] parameters that are set elsewhere
 * @returns {{preset: HTMLElement, value(): object, set(params: object): void}} `preset` is the choice of a preset
 */
export function mountColumnParameters(place, key, described, left = []) {
  let values = {};
  const preset = element("select", { id: `${key}-preset`, on: { change: choosePreset } });
  preset.append(new Option("Own parameters", ""), ...PRESETS.map(({ name, title }) => new Option(title, name)));
  const rows = element("div", { class: "rows" });
  const more = element("select", { id: `${key}-more`, on: { change: add } });
  const wrong = element("p", { class: "wrong small", role: "alert", hidden: true });
  const summary = element("summary");
  place.append(
    element(
      "details",
      {},
      summary,
      rows,
      element("div", { class: "field" }, element("label", { for: more.id, class: "unseen", text: "Set a parameter" }), more),
    ),
    wrong,
  );

  function choosePreset() {
    const chosen = PRESETS.find(({ name }) => name === preset.value);
    set(chosen === undefined ? values : withPreset({}, chosen));
    tell();
  }

  function set(params) {
    values = Object.fromEntries(Object.entries(params).filter(([name]) => !left.includes(name)));
    build();
    showPreset();
  }

  function build() {
    rows.replaceChildren(...Object.keys(values).map(row));
    const groups = Object.entries(described.panels).map(([panel, names]) => {
      const group = element("optgroup", { label: panel });
      group.append(...names.filter((name) => !(name in values) && !left.includes(name)).map((name) => new Option(name, name)));
      return group;
    });
    more.replaceChildren(new Option("Set a parameter …", ""), ...groups.filter((group) => group.childElementCount > 0));
    showError(null);
  }

  function row(name) {
    const id = `${key}-${name}`;
    const kinds = described.objects[name];
    const schema = described.parameters[name];
    const enter = (value, error) => {
      if (error === null && value !== undefined) values[name] = value;
      showError(error === null ? null : `${name}: ${error}`);
      showPreset();
      tell();
    };
    const field = kinds === undefined ? fieldFor(id, schema, enter) : objectField(id, kinds, enter);
    field.setDefault(schema.default);
    field.show(values[name]);
    field.input.title = schema.description;
    const remove = element("button", { type: "button", class: "plain reset", "aria-label": `${name}: back to the default`, text: "✕", on: { click: () => reset(name) } });
    return element("div", { class: "parameter", "data-parameter": name }, element("label", { for: id, class: "mono", text: name }), field.input, remove, field.more ?? null);
  }

  function add() {
    const name = more.value;
    if (name === "") return;
    values[name] = described.parameters[name].default ?? null;
    build();
    rows.lastChild.querySelector("input, select, textarea").focus();
    showPreset();
  }

  function reset(name) {
    delete values[name];
    build();
    showPreset();
    more.focus();
    tell();
  }

  function showPreset() {
    const same = PRESETS.find(({ params }) => JSON.stringify(sorted(params)) === JSON.stringify(sorted(values)));
    preset.value = same?.name ?? "";
    summary.textContent = summaryOf(values);
  }

  function showError(message) {
    wrong.textContent = message ?? "";
    wrong.hidden = message === null;
  }

  function tell() {
    place.dispatchEvent(new CustomEvent("parameters", { bubbles: true }));
  }

  set({});
  return {
    value: () => Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null)),
    set,
    preset: element("div", { class: "field" }, element("label", { for: preset.id, class: "unseen", text: "Preset" }), preset),
  };
}

/** Returns parameters in one line: "temperature 0.8, top_p 0.95". */
export function summaryOf(values) {
  const told = Object.entries(values).filter(([, value]) => value !== null);
  return told.length === 0 ? "The model's defaults" : told.map(([name, value]) => `${name} ${shortly(value)}`).join(", ");
}

function shortly(value) {
  if (typeof value !== "object") return typeof value === "string" ? JSON.stringify(value) : String(value);
  const { type, ...fields } = value;
  const inner = Object.entries(fields).map(([name, one]) => `${name} ${JSON.stringify(one)}`);
  return type === undefined ? JSON.stringify(value) : [type.replaceAll("_", " "), ...inner].join(" ");
}

function sorted(object) {
  return Object.entries(object).sort(([one], [other]) => (one < other ? -1 : 1));
}
