// Writes a run as a program in Python.

import { entriesOf, fieldName, known, pythonText, SnippetError } from "./snippet_texts.js";

/** The classes of the package by the `type` of their plain forms, and the fields that are positional. */
const CLASSES = {
  beam_search: "BeamSearch",
  stochastic_beam_search: "StochasticBeamSearch",
  contrastive_search: "ContrastiveSearch",
  contrastive_decoding: "ContrastiveDecoding",
  dola: "DoLa",
  regex: "Regex",
  choice: "Choice",
  json_schema: "JsonSchema",
  json_object: "JsonObject",
  lark: "Lark",
  gbnf: "Gbnf",
  prompt_lookup: "PromptLookup",
  draft_model: "DraftModel",
  watermark: "Watermark",
};
/** The fields that hold an object with a type. */
const OBJECTS = ["strategy", "grammar", "speculate", "watermark"];

/**
 * @param {{text: string | null, ids: number[]}} asked
 * @param {object} params in their plain form
 * @param {number} generated how many of the last ids begin the text
 * @param {object} model arguments of `LLM`
 */
export function pythonCode(asked, params, generated, model) {
  const names = new Set(["LLM", "GenerationParams"]);
  const fields = [];
  for (const [name, value] of Object.entries(params)) {
    const code = OBJECTS.includes(name) ? objectCode(name, value, names) : fieldCode(name, value);
    if (code !== null) fields.push(`    ${fieldName(name)}=${code},\n`);
  }
  const { model: path, ...options } = model;
  const opened = [...(path === undefined ? [] : [literal(path)]), ...named(options)].join(", ");
  const prompt = asked.text === null ? `[${literal(asked.ids)}]` : literal(asked.text);
  const begun = generated > 0 ? `, generated=${generated}` : "";
  return (
    `from decodery import ${[...names].sort(byCase).join(", ")}\n\nllm = LLM(${opened})\n` +
    `params = GenerationParams(\n${fields.join("")})\n[output] = llm.generate(${prompt}, params${begun})\n` +
    "for completion in output.completions:\n    print(completion.text)\n"
  );
}

/** Returns the code of an object, and adds its class to `names`; null for the value that is the default. */
function objectCode(field, value, names) {
  if (value === null || value === "none") return "None";
  const { type = field, ...fields } = typeof value === "string" ? { type: value } : Object.fromEntries(entriesOf(value));
  if (type === "sampling") return null;
  if (type === "auto") return '"auto"';
  const name = known(CLASSES, type);
  names.add(name);
  return `${name}(${named(fields).join(", ")})`;
}

function fieldCode(name, value) {
  if (name === "logit_bias" && value !== null) {
    return `{${entriesOf(value).map(([token, bias]) => `${number(Number(token))}: ${number(bias)}`).join(", ")}}`;
  }
  if (name === "sequence_bias" && value !== null) {
    return `[${entriesOf(value).map(([phrase, bias]) => `(${literal(phrase)}, ${number(bias)})`).join(", ")}]`;
  }
  return literal(value);
}

function named(fields) {
  return Object.entries(fields).map(([name, value]) => `${fieldName(name)}=${literal(value)}`);
}

function number(value) {
  if (value === "-inf") return 'float("-inf")';
  if (typeof value === "number" && !Number.isNaN(value)) return String(value);
  throw new SnippetError("The run has a parameter of a wrong kind.");
}

function literal(value) {
  if (value === null || value === "none") return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "string") return pythonText(value);
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  return `{${Object.entries(value).map(([key, one]) => `${pythonText(key)}: ${literal(one)}`).join(", ")}}`;
}

/** Orders names as the import sorter of Python does: constants, then classes, ignoring no case. */
function byCase(one, other) {
  const rank = (name) => (name === name.toUpperCase() ? 0 : 1);
  return rank(one) - rank(other) || (one < other ? -1 : 1);
}
