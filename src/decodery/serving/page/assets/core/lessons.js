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
};
const TYPES = {
  sampling: "sampling",
  beam_search: "beam-search",
  stochastic_beam_search: "beam-search",
  contrastive_search: "contrastive-search",
};

/** Returns the name of the page for a parameter with this value, or null. */
export function lessonOf(name, value) {
  if (name === "temperature" && value === 0) return "greedy";
  return TYPES[value?.type] ?? PARAMETERS[name] ?? null;
}
