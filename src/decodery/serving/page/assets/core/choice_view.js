// Reads a position's choice: which number is which, what each stage did, and how the token was taken.

import { number } from "./run.js";
import { beforeShaping, canCut, shapingStages } from "./stages.js";

/**
 * How a token was taken: "picked" by the reader, "drawn" with noise, "greedy", "forced" by a grammar, "rejection" (a draft judged by
 * rejection sampling), "weighed" by contrastive search, or "chosen" by a strategy that tells no more.
 * @typedef {"picked" | "drawn" | "greedy" | "forced" | "rejection" | "weighed" | "chosen"} Way
 *
 * A candidate. `model`, `penalised` and `after` are its probabilities under the model, after the stages before
 * temperature and truncation, and after all stages; `shares` are those after each stage. `cutBy` is the index
 * of the stage that cut it, or null. `sum` is log(`after`) plus noise, null where nothing was drawn.
 * @typedef {{token: number, model: number, penalised: number, after: number, shares: number[], cutBy: ?number,
 *   noise: ?number, sum: ?number, taken: boolean}} Candidate
 */

/** Returns the surprise of a probability, in bits. */
export function surprise(probability) {
  return Math.max(0, -Math.log2(probability));
}

/**
 * Returns what a position tells.
 * @param {import("./run.js").Position} position
 * @param {object} params  Those of its run.
 * @param {number} [vocabSize]  The number of tokens before the first stage.
 * @returns {null | {token: number, before: number, after: number, surprise: number, entropy: number,
 *   rank: number, kept: number, tail: ?number, way: Way, adjusted: boolean, truncated: boolean, allowed: ?number,
 *   stages: {name: string, kept: number, shapes: boolean, cuts: boolean}[], candidates: Candidate[],
 *   idle: string[], margin: ?Margin}}  null where the choice was not told; the `idle` stages of a draw were on and
 *   changed nothing, and `truncated` says that a stage that shapes what is sampled cut a token
 */
export function viewOf(position, params, vocabSize = Infinity) {
  const { choice } = position;
  if (choice === null) return null;
  const early = beforeShaping(params);
  const told = choice.stages ?? [];
  const stages = told.map(({ name, kept }, place) => {
    const fewer = kept < (told[place - 1]?.kept ?? vocabSize);
    return { name, kept, shapes: !early.includes(name), cuts: canCut(name) && fewer };
  });
  const candidates = choice.candidates.map((candidate, place) =>
    candidateOf(candidate, told, stages, place, choice.token),
  );
  const view = {
    token: choice.token,
    before: number(choice.before),
    after: number(choice.after),
    surprise: surprise(number(choice.before)),
    entropy: number(choice.entropy),
    rank: choice.rank,
    kept: choice.kept,
    tail: choice.tail == null ? null : Math.max(0, number(choice.tail)),
    way: wayOf(position, params),
    adjusted: stages.some(({ shapes }) => !shapes),
    truncated: stages.some(({ shapes, cuts }) => shapes && cuts),
    allowed: choice.allowed ?? null,
    allowedTokens: choice.allowed_tokens ?? [],
    stages,
    candidates,
    idle: choice.draw_key == null ? [] : shapingStages(params).filter((name) => !told.some((stage) => stage.name === name)),
  };
  return { ...view, margin: marginOf(view) };
}

function candidateOf(candidate, told, stages, place, token) {
  const model = number(candidate.before);
  const after = number(candidate.after);
  const shares = told.map(({ probabilities }) => number(probabilities[place]));
  const lastEarly = stages.findLastIndex(({ shapes }) => !shapes);
  const noise = candidate.noise == null ? null : number(candidate.noise);
  return {
    token: candidate.token,
    model,
    penalised: lastEarly < 0 ? model : shares[lastEarly],
    after,
    shares,
    cutBy: after === 0 ? cutBy(stages, shares) : null,
    noise,
    sum: noise === null ? null : Math.log(after) + noise,
    taken: candidate.token === token,
  };
}

/** Returns the first stage that left fewer tokens and none of this one. */
function cutBy(stages, shares) {
  const place = stages.findIndex(({ cuts }, i) => cuts && shares[i] === 0);
  return place < 0 ? null : place;
}

function wayOf({ choice, drafted, picked }, params) {
  if (picked) return "picked";
  if (choice.forced) return "forced";
  if (choice.draw_key != null) return "drawn";
  if (choice.weighed?.length) return "weighed";
  if (params.temperature === 0) return "greedy";
  return drafted === null ? "chosen" : "rejection";
}

/**
 * What the token that was taken has more than the next best. `exact` is false where tokens were left that are
 * not among the candidates.
 * @typedef {{amount: number, runnerUp: number, exact: boolean}} Margin
 */
function marginOf({ way, kept, candidates }) {
  if (way !== "drawn" && way !== "greedy") return null;
  const score = way === "drawn" ? ({ sum }) => sum : ({ after }) => Math.log(after);
  const left = candidates.filter(({ after }) => after > 0);
  const taken = left.find((candidate) => candidate.taken);
  const others = left.filter((candidate) => !candidate.taken);
  if (taken === undefined || others.length === 0) return null;
  const next = others.reduce((best, candidate) => (score(candidate) > score(best) ? candidate : best));
  const exact = way === "greedy" || left.length >= kept;
  return { amount: score(taken) - score(next), runnerUp: next.token, exact };
}
