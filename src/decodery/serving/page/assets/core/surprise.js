// Measures how surprising a text is to a model, token by token (Holtzman et al. 2019, figure 2).

import { number } from "./run.js";

/** Returns a probability's surprise in bits, of its natural logarithm. */
export function bitsOf(logprob) {
  return Math.max(0, -number(logprob) / Math.LN2);
}

/**
 * Returns the surprises of a prompt's tokens; the first token has none, because nothing stands before it.
 * @param {({token: number, logprob: number} | null)[]} promptLogprobs  As on the wire.
 * @returns {{token: number, bits: ?number}[]}
 */
export function promptSurprises(tokens, promptLogprobs) {
  return tokens.map((token, i) => ({ token, bits: promptLogprobs[i] == null ? null : bitsOf(promptLogprobs[i].logprob) }));
}

/**
 * Returns the surprises of a stream's tokens under the model's own distribution.
 * @param {import("./run.js").Stream} stream
 */
export function streamSurprises(stream) {
  return stream.positions.map(({ token, logprob, choice }) => {
    if (logprob !== null) return { token, bits: bitsOf(logprob) };
    return { token, bits: choice === null ? null : bitsOf(Math.log(number(choice.before))) };
  });
}

/** Returns the mean and the standard deviation of surprises, of those that are known and finite. */
export function spread(surprises) {
  const known = surprises.map(({ bits }) => bits).filter((bits) => bits !== null && Number.isFinite(bits));
  if (known.length === 0) return { mean: NaN, deviation: NaN, count: 0 };
  const mean = known.reduce((sum, bits) => sum + bits, 0) / known.length;
  const variance = known.reduce((sum, bits) => sum + (bits - mean) ** 2, 0) / known.length;
  return { mean, deviation: Math.sqrt(variance), count: known.length };
}
