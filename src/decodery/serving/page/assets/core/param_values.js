// Says how the value of a parameter is written in a field of the form, by its JSON schema, and reads it.

/**
 * How a value is written: a checkbox, a number, one of some choices, a text, one text or phrase on each line, token ids,
 * or JSON.
 * @typedef {"flag" | "integer" | "number" | "choice" | "text" | "lines" | "ids" | "json"} Kind
 */

/** @returns {Kind} */
export function kindOf(schema) {
  if (schema.enum) return "choice";
  const types = typesOf(schema);
  if (types.length === 1) {
    const [type] = types;
    if (type === "boolean") return "flag";
    if (type === "integer" || type === "number") return type;
    if (type === "string") return "text";
    if (type === "array" && schema.items) return kindOfList(schema.items);
  }
  const lists = (schema.anyOf ?? []).filter((one) => one.type === "array");
  const others = (schema.anyOf ?? []).filter((one) => one.type !== "array" && one.type !== "null");
  if (lists.length === 1 && lists[0].items && others.every((one) => one.type === "string")) {
    const kind = kindOfList(lists[0].items);
    if (kind === "lines") return "lines";
  }
  if (schema.anyOf?.some((one) => one.type === "string") && lists.length <= 1) return "text";
  return "json";
}

function typesOf(schema) {
  const types = Array.isArray(schema.type) ? schema.type : schema.type ? [schema.type] : [];
  return types.filter((type) => type !== "null");
}

function kindOfList(items) {
  const parts = items.anyOf ?? [items];
  if (parts.every((part) => part.type === "integer")) return "ids";
  if (parts.some((part) => part.type === "string") && parts.every((part) => part.type !== "object")) return "lines";
  return "json";
}

/** Returns the choices of a schema as values. */
export function choicesOf(schema) {
  return (schema.enum ?? []).filter((value) => value !== null);
}

/** Returns a value as it is written in a field. */
export function written(kind, value) {
  if (value === undefined || value === null) return "";
  if (kind === "lines") return (Array.isArray(value) ? value : [value]).map(writtenLine).join("\n");
  if (kind === "ids") return value.join(" ");
  if (kind === "json") return JSON.stringify(value);
  if (kind === "text") return typeof value === "string" ? value : JSON.stringify(value);
  return String(value);
}

/** Returns the value that a field holds; undefined for an empty one. Throws an Error that says what is wrong. */
export function read(kind, text) {
  if (kind === "text") return text === "" ? undefined : text;
  if (kind === "lines") return text === "" ? undefined : text.split("\n").filter((line) => line !== "").map(readLine);
  const trimmed = text.trim();
  if (trimmed === "") return undefined;
  if (kind === "integer" || kind === "number") return readNumber(kind, trimmed);
  if (kind === "ids") return trimmed.split(/[\s,]+/).map((one) => readNumber("integer", one));
  if (kind === "json") return readJson(trimmed);
  return text;
}

function readNumber(kind, text) {
  const value = Number(text);
  if (Number.isNaN(value)) throw new Error(`${quoted(text)} is no number`);
  if (kind === "integer" && !Number.isInteger(value)) throw new Error(`${quoted(text)} is no whole number`);
  if (kind === "integer" && !Number.isSafeInteger(value)) {
    throw new Error("a browser holds whole numbers up to 9007199254740991 exactly");
  }
  return value;
}

function readJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error("this is not JSON");
  }
}

/** A line holds one text. Line ends, tabs and backslashes are escaped; token ids are in brackets. */
function writtenLine(value) {
  if (typeof value !== "string") return JSON.stringify(value);
  const escaped = value.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll("\t", "\\t").replaceAll("\r", "\\r");
  return escaped.startsWith("[") ? `\\${escaped}` : escaped;
}

function readLine(line) {
  if (line.startsWith("[")) return readJson(line);
  const names = { n: "\n", t: "\t", r: "\r" };
  return line.replace(/\\(.)/gu, (_, name) => names[name] ?? name);
}

function quoted(text) {
  return `“${text.length > 40 ? `${text.slice(0, 40)}…` : text}”`;
}
