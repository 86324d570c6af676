// Asks what each layer of a model computes for a token: where its heads look, and what it predicts.

import { fromHex } from "./hex.js";
import { floats } from "./position_logits.js";

/** How many tokens of a text the server looks at. */
export const MOST_TOKENS = 512;
const CANDIDATES = 3;

/**
 * What a layer computed for the last of some ids. `shares` has an array for each head: the share of its attention that
 * each token gets. `predicted` has the likeliest next tokens with their probabilities, before the first layer and
 * after each. `pieces` spells all these tokens.
 * @typedef {{layer: number, shares: Float32Array[], predicted: [number, number][][], pieces: Map<number, object>}} LayerView
 */

/**
 * @param {number} layer from 1
 * @returns {Promise<LayerView>}
 */
export async function viewLayer(api, model, ids, layer, signal) {
  const answer = await api.json("/trace/layers", { model, prompt: ids, layer, candidates: CANDIDATES }, signal);
  const all = floats(answer.attention);
  const shares = Array.from({ length: answer.heads }, (_, head) => all.subarray(head * ids.length, (head + 1) * ids.length));
  const pieces = new Map(answer.pieces.map(([token, hex]) => [token, { bytes: fromHex(hex), special: answer.special.includes(token) }]));
  return { layer: answer.layer, shares, predicted: answer.predicted, pieces };
}

/** Returns the mean of the heads' shares. */
export function meanOf(shares) {
  return shares[0].map((_, token) => shares.reduce((sum, head) => sum + head[token], 0) / shares.length);
}

/** Returns the head that gives the most to one token which is neither the first nor one of the last two. */
export function headThatLooksBack(shares) {
  const most = shares.map((head) => Math.max(0, ...head.subarray(1, Math.max(1, head.length - 2))));
  return most.indexOf(Math.max(...most));
}

/** Returns the places of a head's largest shares, the largest first. */
export function topPlaces(head, count) {
  return [...head.keys()].sort((one, other) => head[other] - head[one]).slice(0, count);
}
