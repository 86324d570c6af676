// Builds the input of one value of the form, from its JSON schema.

import { element } from "../core/dom.js";
import { choicesOf, kindOf, read, written } from "../core/param_values.js";

/**
 * @param {string} id the id of the input, for its label
 * @param {object} schema
 * @param {(value: any, error: string | null) => void} changed called with what the reader enters; undefined is empty
 * @returns {{input: HTMLElement, show(value: any): void, setDefault(value: any): void}}
 */
export function fieldFor(id, schema, changed) {
  const kind = kindOf(schema);
  if (kind === "flag") return flag(id, changed);
  if (kind === "choice") return choice(id, choicesOf(schema), changed);
  return entry(id, kind, schema, changed);
}

function flag(id, changed) {
  let standard = false;
  const input = element("input", { id, type: "checkbox", on: { change: () => changed(input.checked, null) } });
  return {
    input,
    show(value) {
      input.checked = value ?? standard;
    },
    setDefault(value) {
      standard = value ?? false;
    },
  };
}

function choice(id, values, changed) {
  const empty = new Option("default", "");
  const input = element("select", { id, on: { change: () => changed(values[input.selectedIndex - 1], null) } });
  input.append(empty, ...values.map((value) => new Option(String(value), String(value))));
  return {
    input,
    show(value) {
      input.selectedIndex = values.indexOf(value) + 1;
    },
    setDefault(value) {
      empty.textContent = value === undefined ? "default" : `${value} (default)`;
    },
  };
}

function entry(id, kind, schema, changed) {
  const long = kind === "lines" || kind === "json" || (kind === "text" && isLong(schema));
  const attributes = { id, autocomplete: "off", spellcheck: "false", on: { input: enter } };
  const numeric = kind === "integer" || kind === "number";
  const input = long
    ? element("textarea", { ...attributes, rows: kind === "lines" ? 2 : 3 })
    : element("input", { ...attributes, type: "text", inputmode: numeric ? "decimal" : null });

  function enter() {
    try {
      changed(read(kind, input.value), null);
    } catch (error) {
      changed(undefined, error.message);
    }
  }

  return {
    input,
    show(value) {
      input.value = written(kind, value);
    },
    setDefault(value) {
      const text = written(kind, value);
      input.placeholder = text === "" ? hint(kind) : text;
    },
  };
}

/** True for the text of a grammar or a schema. */
function isLong(schema) {
  return /grammar|schema/i.test(schema.description ?? "");
}

function hint(kind) {
  return { lines: "one on each line; \\n is a line end", ids: "token ids", json: "JSON" }[kind] ?? "not set";
}
