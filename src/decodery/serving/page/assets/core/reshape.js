// Re-shapes a position's distribution by temperature, top-k, top-p and min-p, as the server does.
//
// Each of these keeps the likeliest tokens, and temperature keeps their order. So the tokens are sorted once,
// and a stage only says how many of the sorted tokens it keeps.

import { gumbelNoise } from "./noise.js";

/** The stages that are re-shaped here. */
export const RESHAPED = Object.freeze(["temperature", "top_k", "top_p", "min_p"]);
/** Sums that differ by less than this may differ in the other order on the server. */
export const NEAR_TIE = 1e-5;

// The relative rounding errors of a probability: of its normalisation, and of its logit, both in float32.
const NORMALISATION = 2 ** -22;
const LOGIT = 2 ** -19;
// Two to this power is more than any vocabulary holds, and leaves 32 bits of a float64 for the logit.
const TOKEN_BITS = 2 ** 21;

/** Holds the possible tokens of a position, the likeliest first, with their logits. */
export class Distribution {
  /** @param {Float32Array} logits  One for each token of the vocabulary; -inf where a token is banned. */
  constructor(logits) {
    const packed = sorted(logits);
    this.tokens = new Int32Array(packed.length);
    this.logits = new Float32Array(packed.length);
    for (let i = 0; i < packed.length; i++) {
      const token = packed[i] % TOKEN_BITS;
      this.tokens[i] = token;
      this.logits[i] = logits[token];
    }
    this.noiseKey = null;
    this.noise = null;
    this.noiseKnown = 0;
    this.temperature = 1;
    this.divided = this.logits;
  }

  /** Returns the number of possible tokens. */
  get size() {
    return this.tokens.length;
  }

  /** Returns the logits divided by a temperature; those of the last one are kept. */
  at(temperature) {
    if (temperature !== this.temperature) {
      const divisor = Math.fround(temperature);
      this.divided = new Float32Array(this.size);
      for (let i = 0; i < this.size; i++) this.divided[i] = this.logits[i] / divisor;
      this.temperature = temperature;
    }
    return this.divided;
  }

  /** Returns the noise of the first `count` tokens, which is computed once for each key. */
  noiseOf(key, count) {
    if (this.noiseKey === null || this.noiseKey[0] !== key[0] || this.noiseKey[1] !== key[1]) {
      [this.noiseKey, this.noise, this.noiseKnown] = [key, new Float32Array(this.size), 0];
    }
    for (; this.noiseKnown < count; this.noiseKnown++) {
      this.noise[this.noiseKnown] = gumbelNoise(key, this.tokens[this.noiseKnown]);
    }
    return this.noise;
  }
}

/** Returns, for each possible token, a number that holds its rank and itself, in order. */
function sorted(logits) {
  const bits = new Uint32Array(logits.buffer, logits.byteOffset, logits.length);
  const packed = new Float64Array(logits.length);
  let count = 0;
  for (let token = 0; token < logits.length; token++) {
    const logit = logits[token];
    if (Number.isNaN(logit)) throw new RangeError("the model's scores are not numbers");
    if (logit === -Infinity) continue;
    // Zero and minus zero are equal, but their bits are not.
    const word = logit === 0 ? 0 : bits[token];
    const ascending = word >>> 31 ? ~word >>> 0 : (word | 0x80000000) >>> 0;
    packed[count++] = (0xffffffff - ascending) * TOKEN_BITS + token;
  }
  return packed.subarray(0, count).sort();
}

/**
 * Holds a re-shaped distribution: the first `kept` of its tokens are left, with the logits `values`.
 * `stages` says for each stage that was applied how many tokens it left. `drawn` is false for greedy choices.
 */
export class Shape {
  constructor(distribution, drawn, stages, values, kept) {
    Object.assign(this, { distribution, drawn, stages, values, kept });
    this.norm = null;
  }

  /** The logarithm of the sum of the exponentials of the values that are left. */
  get logNorm() {
    this.norm ??= this.values[0] + Math.log(sumOfExponentials(this.values, this.kept));
    return this.norm;
  }

  /** Returns the probability of the token at a place in the order of likelihood. */
  probability(place) {
    return place < this.kept ? Math.exp(this.values[place] - this.logNorm) : 0;
  }

  /** Returns the stage that cut the token at this place, or null. */
  cutBy(place) {
    return this.stages.find((stage) => place >= stage.kept)?.name ?? null;
  }
}

function sumOfExponentials(values, count) {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += Math.exp(values[i] - values[0]);
  return sum;
}

/** True if a stage does nothing with these parameters. */
export function isOff(name, params) {
  if (name === "temperature") return params.temperature === 1;
  if (name === "top_k") return params.top_k <= 0;
  return name === "top_p" ? params.top_p >= 1 : params.min_p <= 0;
}

/**
 * Returns the distribution after the stages that the parameters ask for.
 * @param {Distribution} distribution  What the stages before temperature and truncation left.
 * @param {{temperature: number, top_k: number, top_p: number, min_p: number}} params
 * @param {readonly string[]} order  The order of the stages; other names are ignored.
 */
export function reshape(distribution, params, order = RESHAPED) {
  // A greedy choice takes the likeliest token whatever the truncations say.
  const greedy = params.temperature === 0;
  const stages = [];
  let values = distribution.logits;
  let kept = distribution.size;
  for (const name of order) {
    if (greedy || !RESHAPED.includes(name) || isOff(name, params)) continue;
    // No other stage changes the values.
    if (name === "temperature") values = distribution.at(params.temperature);
    else if (kept > 0) kept = KEPT[name](values, kept, params);
    stages.push({ name, kept });
  }
  return new Shape(distribution, !greedy, stages, values, kept);
}

const KEPT = {
  top_k: (values, count, params) =>
    params.top_k >= count ? count : withTies(values, count, values[params.top_k - 1]),
  top_p: (values, count, params) => withTies(values, count, nucleusBorder(values, count, params.top_p)),
  min_p: (values, count, params) => {
    const share = Math.fround(Math.log(params.min_p * (1 - LOGIT)));
    return withTies(values, count, Math.fround(values[0] + share));
  },
};

/** Returns how many of the first `count` values, which descend, are at least the border. */
function withTies(values, count, border) {
  let [low, high] = [0, count];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] >= border) low = middle + 1;
    else high = middle;
  }
  return low;
}

function nucleusBorder(values, count, topP) {
  const mass = Math.fround(topP * (1 - NORMALISATION - (1 - topP) * LOGIT));
  const log = Math.fround(Math.log(sumOfExponentials(values, count)));
  let sum = 0;
  let i = 0;
  for (; i < count && sum < mass; i++) {
    sum += Math.fround(Math.exp(Math.fround(Math.fround(values[i] - values[0]) - log)));
  }
  return values[i > 0 ? i - 1 : 0];
}

/**
 * Says which token a choice takes. `sum` is its log-probability plus noise, or without noise if greedy;
 * `margin` is what it has more than `runnerUp` (a place, or null). A near tie is `undecided`.
 * @param {Shape} shape
 * @param {readonly [number, number] | null} key  The position's draw key; a greedy choice needs none.
 * @returns {{place: number, token: number, sum: number, margin: number, runnerUp: ?number, undecided: boolean}
 *   | null} null where no token is possible, or the key is missing
 */
export function choose(shape, key) {
  const { distribution, values, kept } = shape;
  if (kept === 0 || (shape.drawn && key === null)) return null;
  const noise = shape.drawn ? distribution.noiseOf(key, kept) : null;
  let [best, second] = [-1, -1];
  let [most, next] = [-Infinity, -Infinity];
  for (let i = 0; i < (noise === null ? Math.min(2, kept) : kept); i++) {
    const sum = noise === null ? values[i] : Math.fround(values[i] + noise[i]);
    if (best < 0 || isAbove(sum, distribution.tokens[i], most, distribution.tokens[best])) {
      [second, next, best, most] = [best, most, i, sum];
    } else if (second < 0 || sum > next) {
      [second, next] = [i, sum];
    }
  }
  const margin = second < 0 ? Infinity : most - next;
  // Large logits are too coarse in float32 for a smaller difference to mean something.
  const blurred = Math.max(NEAR_TIE, Math.abs(values[best]) * 2 ** -21);
  return {
    place: best,
    token: distribution.tokens[best],
    sum: most - shape.logNorm,
    margin,
    runnerUp: second < 0 ? null : second,
    undecided: margin < blurred,
  };
}

/** True if a sum is larger, or as large with a lower token, as the server decides. */
function isAbove(sum, token, otherSum, otherToken) {
  return sum > otherSum || (sum === otherSum && token < otherToken);
}
