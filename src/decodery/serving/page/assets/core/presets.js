// Lists sets of parameters with a purpose. A preset leaves the length and the seed as they are.

export const PRESETS = [
  { name: "precise", title: "Precise", help: "The likeliest token each time.", params: { temperature: 0 } },
  {
    name: "creative",
    title: "Creative",
    help: "Flatter probabilities, without the tail.",
    params: { temperature: 1.2, min_p: 0.05 },
  },
  {
    name: "beam",
    title: "Beam",
    help: "The likeliest of four texts that are kept at each step.",
    params: { strategy: { type: "beam_search", num_beams: 4 } },
  },
  {
    name: "contrastive",
    title: "Contrastive",
    help: "Likely tokens that repeat the text least.",
    params: { strategy: { type: "contrastive_search", top_k: 4, penalty_alpha: 0.6 } },
  },
  {
    name: "json",
    title: "JSON",
    help: "The text is a JSON object.",
    params: { temperature: 0.7, grammar: { type: "json_object" } },
  },
  {
    name: "dola",
    title: "DoLa",
    help: "The last layer, contrasted with an earlier one.",
    params: { temperature: 0, strategy: { type: "dola", layers: "high" }, repetition_penalty: 1.2 },
  },
  {
    name: "speculation",
    title: "Speculation",
    help: "Drafts are copied from the text and checked several at once.",
    params: { temperature: 0, speculate: { type: "prompt_lookup" } },
  },
];

const KEPT = ["max_tokens", "seed", "n"];

/** Returns the parameters of a preset, with the length and the seed of these. */
export function withPreset(params, preset) {
  const kept = KEPT.filter((name) => name in params && !(name === "n" && "strategy" in preset.params));
  return { ...Object.fromEntries(kept.map((name) => [name, params[name]])), ...preset.params };
}
