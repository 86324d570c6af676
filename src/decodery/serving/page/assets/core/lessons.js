// Says which learner's page explains a parameter, or one of its types.

const PARAMETERS = {
  temperature: "sampling",
  seed: "sampling",
  n: "sampling",
  top_k: "truncation",
  top_p: "truncation",
  min_p: "truncation",
  typical_p: "truncation",
  epsilon_cutoff: "truncation",
  eta_cutoff: "truncation",
  top_n_sigma: "truncation",
  top_a: "truncation",
  tfs_z: "truncation",
  speculate: "speculation",
  grammar: "grammars",
  token_healing: "tokenizers",
  repetition_penalty: "penalties",
  presence_penalty: "penalties",
  frequency_penalty: "penalties",
  no_repeat_ngram_size: "penalties",
  dry_multiplier: "penalties",
  guidance_scale: "guidance",
  negative_prompt: "guidance",
  watermark: "watermark",
};
const TYPES = {
  sampling: "sampling",
  stochastic_beam_search: "beam-search",
  contrastive_search: "contrastive-search",
  dola: "dola",
};

/** Returns the name of the page for a parameter with this value, or null. */
export function lessonOf(name, value) {
  if (name === "temperature" && value === 0) return "greedy";
  if (value?.type === "beam_search") return beamLesson(value);
  return TYPES[value?.type] ?? PARAMETERS[name] ?? null;
}

function beamLesson(search) {
  if (search.force_words?.length) return "constrained-beam-search";
  return search.num_beam_groups > 1 ? "diverse-beam-search" : "beam-search";
}
