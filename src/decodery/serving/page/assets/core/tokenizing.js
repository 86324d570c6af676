// Asks the server for the tokens of texts, and for the pieces of token ids.

import { fromHex } from "./hex.js";

/**
 * Tokens with their bytes. `spans` are those of each token in the bytes of the text, from its first byte to the one
 * behind its last.
 * @typedef {{ids: number[], spans: [number, number][], pieces: Map<number, {bytes: Uint8Array, special: boolean}>}} Tokenized
 */

/** @returns {Promise<Tokenized>} the tokens of a text */
export async function tokenize(api, model, text, { special = true, signal } = {}) {
  const body = { model, prompt: text, add_special_tokens: special, return_pieces: true };
  return read(await api.json("/tokenize", body, signal));
}

/** @returns {Promise<Tokenized>} the tokens of a conversation; the spans are those in the text that the tokens spell */
export async function tokenizeMessages(api, model, messages, { signal } = {}) {
  return read(await api.json("/tokenize", { model, messages, return_pieces: true }, signal));
}

/** @returns {Promise<Tokenized>} given tokens; the spans are those in the text that the tokens spell */
export async function piecesOf(api, model, ids, { signal } = {}) {
  const answer = await api.json("/detokenize", { model, tokens: ids, return_pieces: true }, signal);
  return read({ ...answer, tokens: ids });
}

/**
 * Returns the tokens that a text adds after another one, of which `ids` are the tokens.
 *
 * Both are divided as one text: a tokenizer may put a space before each text, and a text that is divided alone has one
 * too many. Where the tokens of both do not begin with those of the first, the added text is divided `alone`.
 * @param {{text: string, ids: number[]}} before
 * @returns {Promise<{ids: number[], pieces: Map<number, object>, alone: boolean}>}
 */
export async function tokenizeAfter(api, model, before, added, { special = true, signal } = {}) {
  const whole = await tokenize(api, model, before.text + added, { special, signal });
  const start = before.ids.length;
  if (whole.ids.length > start && before.ids.every((id, i) => id === whole.ids[i])) {
    return { ids: whole.ids.slice(start), pieces: whole.pieces, alone: false };
  }
  const { ids, pieces } = await tokenize(api, model, added, { special: false, signal });
  return { ids, pieces, alone: true };
}

function read(answer) {
  const special = new Set(answer.special);
  const pieces = new Map(answer.pieces.map(([id, hex]) => [id, { bytes: fromHex(hex), special: special.has(id) }]));
  return { ids: answer.tokens, pieces, spans: answer.spans ?? spansOf(answer.tokens, pieces) };
}

/** Returns the span of each token in the bytes that the tokens spell together. */
export function spansOf(ids, pieces) {
  let place = 0;
  return ids.map((id) => {
    const start = place;
    place += pieces.get(id)?.bytes.length ?? 0;
    return [start, place];
  });
}

/** Returns the first and the last token, inclusive, that share a byte with a span; null if none does. */
export function tokensWithin(spans, [start, end]) {
  if (start >= end) return null;
  const first = lowest(spans.length, (i) => spans[i][1] > start);
  const last = lowest(spans.length, (i) => spans[i][0] >= end) - 1;
  return first <= last ? [first, last] : null;
}

/** Returns the lowest number below `count` that satisfies a condition which all higher ones satisfy, or `count`. */
function lowest(count, condition) {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (condition(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Returns the token ids in a text that a person wrote, such as `[1, 2 3]`. Throws a SyntaxError for other signs. */
export function idsOf(text) {
  const wrong = /[^\d\s,;[\]()]/u.exec(text);
  if (wrong !== null) throw new SyntaxError(`“${String.fromCodePoint(wrong[0].codePointAt(0))}” is no part of a token id`);
  return (text.match(/\d+/g) ?? []).map(Number);
}
