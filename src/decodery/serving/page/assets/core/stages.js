// Names the processors of a choice, as docs/processors.md does.

/** The order in which they run, unless a request sets its own. */
export const DEFAULT_ORDER = Object.freeze([
  "grammar",
  "sequence_bias",
  "encoder_repetition_penalty",
  "repetition_penalty",
  "presence_and_frequency_penalty",
  "dry",
  "no_repeat_ngram",
  "encoder_no_repeat_ngram",
  "bad_words",
  "min_tokens",
  "forced_bos",
  "forced_eos",
  "exponential_decay",
  "suppress_tokens",
  "begin_suppress_tokens",
  "allowed_token_ids",
  "logit_bias",
  "custom",
  "temperature",
  "top_n_sigma",
  "top_k",
  "tfs",
  "top_p",
  "min_p",
  "top_a",
  "typical_p",
  "epsilon_cutoff",
  "eta_cutoff",
  "xtc",
  "mirostat",
  "watermark",
  "renormalize",
]);

/** Those that only shape what is sampled. A greedy choice skips them. */
export const SHAPING = Object.freeze(
  DEFAULT_ORDER.slice(DEFAULT_ORDER.indexOf("temperature"), DEFAULT_ORDER.indexOf("watermark")),
);

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
