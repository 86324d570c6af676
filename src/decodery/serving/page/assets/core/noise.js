// Computes the noise of a draw, as the server's engine does.
//
// A draw takes the token with the largest sum of logit and Gumbel noise. The noise is a hash of a key and the
// token; the key is a hash of the seed and the position. So the page can say what another distribution would
// have drawn at the same place.

const M1 = 0x7feb352d;
const M2 = 0x846ca68b;
const GOLDEN = 0x9e3779b1;
const LARGEST_BELOW_1 = 1 - 2 ** -24;
const MASK = (1n << 64n) - 1n;

function mixed(x) {
  x = Math.imul(x ^ (x >>> 16), M1);
  x = Math.imul(x ^ (x >>> 15), M2);
  return x ^ (x >>> 16);
}

/**
 * Returns 32 random bits, from 0 to 2^32 - 1.
 * @param {readonly [number, number]} key  The two words of a position's `draw_key`.
 * @param {number} token
 */
export function randomBits(key, token) {
  const hash = mixed(mixed(Math.imul(token, GOLDEN) ^ key[0]) ^ key[1]);
  return (hash ^ 0x80000000) >>> 0;
}

/**
 * Returns standard Gumbel noise in float32: -log(-log(1 - u)), u being uniform.
 * @param {readonly [number, number]} key
 * @param {number} token
 */
export function gumbelNoise(key, token) {
  // Rounded to float32 where the compiled kernel rounds.
  const number = Math.fround(Math.fround(randomBits(key, token)) + 0.5);
  const u = Math.min(Math.fround(number * 2 ** -32), LARGEST_BELOW_1);
  return Math.fround(-Math.log(-Math.log1p(-u)));
}

function splitmix64(x) {
  x = (x + 0x9e3779b97f4a7c15n) & MASK;
  x = ((x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  x = ((x ^ (x >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return x ^ (x >> 31n);
}

/**
 * Returns the seed of one of a request's streams; the first stream has the request's own.
 * @param {bigint} seed
 * @param {number} stream
 */
export function streamSeed(seed, stream) {
  const own = seed & MASK;
  return stream === 0 ? own : splitmix64(own ^ splitmix64(BigInt(stream)));
}

/**
 * Returns the key of the noise for the token at `position`, the number of tokens before it.
 * @param {bigint} seed  A stream's seed.
 * @param {number} position
 * @returns {[number, number]} two int32
 */
export function drawKey(seed, position) {
  const key = splitmix64(splitmix64(seed & MASK) ^ BigInt(position));
  return [Number(BigInt.asIntN(32, key)), Number(BigInt.asIntN(32, key >> 32n))];
}
