// Builds the inputs of a parameter that holds an object: its type, and the fields that this type has.

import { element } from "../core/dom.js";
import { fieldFor } from "./parameter_field.js";

/**
 * @param {string} id
 * @param {Object<string, object>} kinds the schema of each type
 * @param {(value: object | undefined, error: string | null) => void} changed
 * @returns {{input: HTMLElement, more: HTMLElement, show(value: any): void, setDefault(value: any): void,
 *   errorPlace(path: string): HTMLElement | null}}
 */
export function objectField(id, kinds, changed) {
  const types = Object.keys(kinds);
  const empty = new Option("none", "");
  const input = element("select", { id, on: { change: choose } });
  input.append(empty, ...types.map((type) => new Option(type.replaceAll("_", " "), type)));
  const more = element("div", { class: "object" });
  let value;
  let errors = new Map();

  function choose() {
    value = input.value === "" ? undefined : { type: input.value };
    build();
    tell();
  }

  function tell() {
    const missing = value && kinds[value.type].required?.find((name) => name !== "type" && value[name] === undefined);
    const [error] = errors.values();
    changed(value && { ...value }, error ?? (missing ? `${missing} is missing` : null));
  }

  function build() {
    errors = new Map();
    more.replaceChildren();
    if (value === undefined) return;
    const schema = kinds[value.type];
    if (schema === undefined) return;
    more.append(element("p", { class: "help", text: plainText(schema.description) }));
    for (const [name, field] of Object.entries(schema.properties)) if (name !== "type") more.append(row(name, field));
  }

  function row(name, schema) {
    const place = `${id}-${name}`;
    const field = fieldFor(place, schema, (entered, error) => {
      if (error === null) errors.delete(name);
      else errors.set(name, error);
      if (entered === undefined) delete value[name];
      else value[name] = entered;
      tell();
    });
    field.setDefault(schema.default);
    field.show(value[name]);
    field.input.setAttribute("aria-describedby", `${place}-help`);
    return element(
      "div",
      { class: "parameter inner", "data-field": name },
      element("label", { for: place, class: "mono", text: name }),
      field.input,
      element("p", { class: "help", id: `${place}-help`, text: schema.description ?? "" }),
    );
  }

  return {
    input,
    more,
    show(given) {
      value = typeof given === "string" ? { type: given } : given && { ...given };
      // A watermark may be written without its type.
      if (value && value.type === undefined && types.length === 1) value.type = types[0];
      input.value = value?.type ?? "";
      build();
    },
    setDefault(given) {
      const type = given?.type ?? given;
      empty.textContent = type ? `${String(type).replaceAll("_", " ")} (default)` : "none";
    },
    errorPlace(path) {
      return more.querySelector(`[data-field="${CSS.escape(path)}"]`);
    },
  };
}

/** Returns a docstring's sentence without its marks of code. */
function plainText(text) {
  return (text ?? "").replaceAll("`", "");
}
