// Says how the sliders can re-shape a position: in the page, by the server, or not at all.

import { RESHAPED } from "./reshape.js";
import { shapingStages } from "./stages.js";

const BY_LOGITS = ["sampling", "dola", "contrastive_decoding"];
// The logarithm of a sum is subtracted from all logits: no probability changes.
const WITHOUT_EFFECT = ["renormalize"];

/**
 * Returns where a position of a run is re-shaped, and why it is not where it is not.
 * @returns {{where: "page" | "server" | "nowhere", reason: string, stages: string[]}} `stages` are those that only
 *   the server knows
 */
export function reshapable(params) {
  const strategy = params.strategy?.type ?? "sampling";
  if (!BY_LOGITS.includes(strategy)) {
    return { where: "nowhere", reason: `${strategy.replaceAll("_", " ")} does not draw by these parameters`, stages: [] };
  }
  const others = shapingStages(params).filter((name) => !RESHAPED.includes(name) && !WITHOUT_EFFECT.includes(name));
  if (params.dynatemp_range) others.unshift("temperature");
  if (others.includes("mirostat")) {
    return { where: "nowhere", reason: "mirostat's cut follows from all draws before", stages: others };
  }
  return { where: others.length > 0 ? "server" : "page", reason: "", stages: others };
}
