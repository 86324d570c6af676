// Names the processors of a choice, as docs/processors.md does.

const { processors } = await (await fetch(new URL("../parameters.json", import.meta.url))).json();

/** The order in which they run, unless a request sets its own. */
export const DEFAULT_ORDER = Object.freeze(processors.order);

/** Those that only shape what is sampled. A greedy choice skips them. */
export const SHAPING = Object.freeze(processors.shaping);

const VALUES_ONLY = Object.freeze([
  "encoder_repetition_penalty",
  "repetition_penalty",
  "presence_and_frequency_penalty",
  "dry",
  "exponential_decay",
  "temperature",
  "watermark",
  "renormalize",
]);

/** False for a processor that changes probabilities, but leaves every token possible. */
export function canCut(name) {
  return !VALUES_ONLY.includes(name);
}

/** Returns the order of a request's processors. */
export function orderOf(params) {
  return params.processor_order ?? DEFAULT_ORDER;
}

/** Returns the processors that run before the first one that may shape what is sampled. */
export function beforeShaping(params) {
  const order = orderOf(params);
  return order.slice(0, order.findIndex((name) => SHAPING.includes(name)));
}

/** Returns a processor's name as it is written in a text: "top-k". */
export function stageLabel(name) {
  return name.replaceAll("_", /^(top|min|typical)_/.test(name) ? "-" : " ");
}

/** The parameters that turn a processor on, where they do not have its name. */
const TURNED_ON_BY = {
  grammar: ["grammar", "token_healing"],
  presence_and_frequency_penalty: ["presence_penalty", "frequency_penalty"],
  dry: ["dry_multiplier"],
  no_repeat_ngram: ["no_repeat_ngram_size"],
  encoder_no_repeat_ngram: ["encoder_no_repeat_ngram_size"],
  min_tokens: ["min_tokens", "min_length"],
  forced_bos: ["forced_bos_token_id"],
  forced_eos: ["forced_eos_token_id"],
  exponential_decay: ["exponential_decay_length_penalty"],
  custom: ["logits_processors"],
  temperature: ["temperature", "dynatemp_range"],
  tfs: ["tfs_z"],
  xtc: ["xtc_probability"],
  mirostat: ["mirostat_mode"],
  renormalize: ["renormalize_logits"],
};

/** The parameters for which 1 means off. */
const OFF_AT_ONE = Object.freeze([
  "temperature",
  "top_p",
  "typical_p",
  "tfs_z",
  "repetition_penalty",
  "encoder_repetition_penalty",
]);

/** True if a run's parameters turn a processor on. */
export function isUsed(name, params) {
  return (TURNED_ON_BY[name] ?? [name]).some((field) => !isOff(field, params[field]));
}

function isOff(field, value) {
  if (value == null || value === false) return true;
  // Any id is a token, 0 too.
  if (field.endsWith("_token_id")) return false;
  if (typeof value === "number") return value === (OFF_AT_ONE.includes(field) ? 1 : 0);
  return Array.isArray(value) ? value.length === 0 : typeof value === "object" && Object.keys(value).length === 0;
}

/** Returns the processors that a run uses from the first one on that may shape what is sampled, in order. */
export function shapingStages(params) {
  const order = orderOf(params);
  return order.slice(beforeShaping(params).length).filter((name) => isUsed(name, params));
}
