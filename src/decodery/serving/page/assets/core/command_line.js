// Writes a run as a command of `decodery generate`, for bash and zsh.

import { entriesOf, fieldName, known, shellText, SnippetError } from "./snippet_texts.js";

/** The flags of strategies by the `type` of their plain forms: the strategy's name, and the flags of its fields. */
const STRATEGIES = {
  sampling: ["sampling", {}],
  beam_search: ["beam", { sample: "beam_sample", rules: "beam_rules", force_words: "force_word" }],
  stochastic_beam_search: ["stochastic-beam", {}],
  contrastive_search: ["contrastive", { top_k: "contrastive_k" }],
  contrastive_decoding: ["contrastive-decoding", { alpha: "amateur_alpha", beta: "amateur_beta" }],
  dola: ["dola", { layers: "dola_layers" }],
};
const LOOKUP = { max_ngram: "lookup_ngram", num_tokens: "draft_tokens", adaptive: "draft_adaptive" };
const DRAFT = { model: "draft_model", num_tokens: "draft_tokens", adaptive: "draft_adaptive" };
const WATERMARK = {
  bias: "watermark_bias",
  greenlist_ratio: "watermark_ratio",
  hashing_key: "watermark_key",
  context_width: "watermark_context",
  seeding_scheme: "watermark_scheme",
};
/** Fields of texts, in which "none" is a text, and fields that are repeated for each of their items. */
const TEXTS = ["stop_regex", "negative_prompt"];
const REPEATED = ["stop", "bad_words", "dry_sequence_breakers"];
/** What is reported beside the text needs --json, and does not change the text. */
const REPORTED = ["logprobs", "prompt_logprobs", "prompt_logprobs_start"];
/** Linux gives one argument 128 KiB. */
const LONGEST_WORD = 100_000;

/**
 * @param {{text: string | null, ids: number[]}} asked
 * @param {object} params in their plain form
 * @param {number} generated how many of the last ids begin the text
 * @param {object} model arguments of `LLM`
 */
export function commandLine(asked, params, generated, model) {
  const words = modelWords(model);
  for (const [name, value] of Object.entries(params)) {
    if (name === "strategy") words.push(...strategyWords(value, model.second_models ?? {}));
    else if (name === "grammar") words.push(...grammarWords(value));
    else if (name === "speculate") words.push(...speculationWords(value, model.second_models ?? {}));
    else if (name === "watermark") words.push(...watermarkWords(value));
    else if (!REPORTED.includes(name)) words.push(...fieldWords(name, value));
  }
  if (generated > 0) words.push(flag("generated", generated));
  words.push(promptWords(asked));
  return `decodery generate \\\n  ${words.join(" \\\n  ")}\n`;
}

function modelWords({ second_models: _, ...options }) {
  return Object.entries(options).map(([name, value]) => flag(name, value));
}

function promptWords({ text, ids }) {
  // "-" stands for the standard input, a byte order mark at the beginning is left out, and so is a carriage return at
  // the end of a file.
  const isText = text !== null && text !== "-" && !/^\ufeff|\0|\p{Cs}|\r$/u.test(text);
  if (isText && text.length <= LONGEST_WORD / 3) return `-- ${shellText(text)}`;
  if (isText) return `--file ${fileOf(text)}`;
  const word = ids.join(",");
  if (word.length > LONGEST_WORD) throw new SnippetError("The prompt is too long for a command line: copy it as curl.");
  return `--token-ids=${word}`;
}

/** Returns a file that the shell makes of a text; the line end at its end is not read. */
function fileOf(text) {
  return `<(printf '%s\\n' ${shellText(text)})`;
}

function flag(name, value) {
  const words = fieldName(name).replaceAll("_", "-");
  if (value === true) return `--${words}`;
  if (value === false) return `--no-${words}`;
  return `--${words}=${shellText(String(value))}`;
}

function fieldWords(name, value) {
  if (value === null && !TEXTS.includes(name)) return [flag(name, "none")];
  if (value === null || (typeof value === "object" && Object.keys(value).length === 0)) throw unset(name);
  if (name === "logit_bias") return entriesOf(value).map(([token, bias]) => flag(name, `${token}=${bias}`));
  if (name === "sequence_bias") return entriesOf(value).map(([phrase, bias]) => flag(name, `${textOf(name, phrase)}=${bias}`));
  if (REPEATED.includes(name)) return [value].flat().map((one) => flag(name, textOf(name, one)));
  if (TEXTS.includes(name)) return [flag(name, textOf(name, value))];
  return [flag(name, Array.isArray(value) ? value.join(",") : value)];
}

function unset(name) {
  return new SnippetError(`The command line cannot unset ${name}, for which the model has a default: copy it as Python.`);
}

function textOf(name, value) {
  if (typeof value === "string") return value;
  throw new SnippetError(`${name} holds token ids, which no flag takes: copy it as Python.`);
}

/** Returns the flags of an object's fields. */
function objectWords(fields, names) {
  return Object.entries(fields)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => flag(names[name] ?? name, Array.isArray(value) ? value.join(",") : value));
}

function strategyWords(value, second) {
  if (value === null) return ["--strategy=sampling"];
  const { type, force_words: phrases = [], ...fields } = withType(value);
  // Its flag takes true, false and never as words.
  if (fields.early_stopping !== undefined) fields.early_stopping = String(fields.early_stopping);
  const [name, names] = known(STRATEGIES, type);
  if (fields.amateur !== undefined) fields.amateur = pathOf(fields.amateur, second);
  return [`--strategy=${name}`, ...objectWords(fields, names), ...phrases.map(forced)];
}

function forced(phrase) {
  const choices = Array.isArray(phrase) ? phrase : [phrase];
  if (choices.some((one) => typeof one !== "string")) throw new SnippetError("force_words holds token ids, which no flag takes: copy it as Python.");
  if (choices.some((one) => one.includes("|"))) throw new SnippetError('The flag --force-word divides phrases at "|": copy it as Python.');
  return flag("force_word", choices.join("|"));
}

function grammarWords(value) {
  if (value === null) throw unset("grammar");
  const { type, ...fields } = value;
  return known(GRAMMARS, type)(fields);
}

const GRAMMARS = {
  regex: ({ pattern }) => [flag("regex", textOf("grammar", pattern))],
  choice: ({ options }) => [options].flat().map((option) => flag("choice", textOf("grammar", option))),
  json_object: () => ["--json-object"],
  json_schema: ({ schema, unsupported }) => [
    flag("json_schema", typeof schema === "string" ? schema : JSON.stringify(schema)),
    ...(unsupported === "approximate" ? ["--json-approximate"] : []),
  ],
  lark: ({ grammar }) => [`--lark ${fileOf(textOf("grammar", grammar))}`],
  gbnf: ({ grammar }) => [`--gbnf ${fileOf(textOf("grammar", grammar))}`],
};

function speculationWords(value, second) {
  if (value === null || value === "none") return ["--no-speculate"];
  const { type, ...fields } = withType(value);
  if (type === "auto") return ["--speculate"];
  if (type === "prompt_lookup") return ["--prompt-lookup", ...objectWords(fields, LOOKUP)];
  if (type !== "draft_model") known({}, type);
  return objectWords({ ...fields, model: pathOf(fields.model, second) }, DRAFT);
}

function watermarkWords(value) {
  if (value === null) throw unset("watermark");
  const { type: _, ...fields } = value;
  return ["--watermark", ...objectWords(fields, WATERMARK)];
}

function withType(value) {
  return typeof value === "string" ? { type: value } : Object.fromEntries(entriesOf(value));
}

function pathOf(name, second) {
  if (Object.hasOwn(second, name)) return second[name];
  throw new SnippetError(`The run uses ${name}, a second model of the server whose path is not known: copy it as curl.`);
}
