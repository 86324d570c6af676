// Says how tokens are shown: their bytes are joined across tokens, and what cannot be seen gets a visible mark.

const NEWLINE = "⏎";
const TAB = "⇥";
const SPACE = "·";
const NONE = new Uint8Array();
const FORMATS = /[\p{Cf}\p{Cc}\u2028\u2029\u115f\u1160\u3164\uffa0\u034f]/u;
const BIDI = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/;
const JOINED_EMOJI = /\p{Extended_Pictographic}[\p{M}\u{1f3fb}-\u{1f3ff}]*\u200d(?=\p{Extended_Pictographic})/gu;

/**
 * What a token shows.
 * @typedef {{text: string, segments: {text: string, mark: string | null}[], bytes: string | null,
 *   special: boolean, isolated: boolean}} Spelled
 *   `text` is the text that the token adds; `segments` divide it, each mark stands before its text; `bytes` are those
 *   of a token that begins or ends inside a character; `isolated`: it has controls of the writing direction
 */

/** Spells tokens in order. A character whose bytes come in several tokens belongs to the last of them. */
export class Speller {
  #pieces;
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #open = NONE;

  /** @param {Map<number, {bytes: Uint8Array, special: boolean}>} pieces */
  constructor(pieces) {
    this.#pieces = pieces;
  }

  /** @returns {Spelled} */
  push(token) {
    const { bytes, special } = this.#pieces.get(token) ?? { bytes: new Uint8Array(), special: false };
    const before = this.#open;
    const text = this.#decoder.decode(bytes, { stream: true });
    this.#open = unfinished(Uint8Array.of(...before, ...bytes));
    const broken = before.length > 0 || this.#open.length > 0 || (text.includes("\ufffd") && !hasReplacement(bytes));
    return {
      text,
      segments: segments(text),
      bytes: broken ? hexadecimal(bytes) : null,
      special,
      isolated: BIDI.test(text),
    };
  }
}

/** Returns the bytes at the end that begin a character which is not complete. */
function unfinished(bytes) {
  for (let back = 1; back <= Math.min(3, bytes.length); back += 1) {
    const byte = bytes[bytes.length - back];
    if (byte < 0x80) break;
    if (byte >= 0xc0) return back < lengthOf(byte) ? bytes.slice(-back) : NONE;
  }
  return NONE;
}

function lengthOf(lead) {
  if (lead >= 0xf5 || lead < 0xc2) return 1;
  return lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
}

function hasReplacement(bytes) {
  return bytes.some((byte, i) => byte === 0xef && bytes[i + 1] === 0xbf && bytes[i + 2] === 0xbd);
}

/** Returns bytes as `F0 9F`. */
export function hexadecimal(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(" ");
}

/** Divides a text: each character that cannot be seen begins a segment with its mark. */
export function segments(text) {
  if (text !== "" && /^ +$/.test(text)) return [{ text, mark: SPACE.repeat(text.length) }];
  const joiners = new Set();
  for (const found of text.matchAll(JOINED_EMOJI)) joiners.add(found.index + found[0].length - 1);
  const found = [];
  let start = 0;
  let at = 0;
  for (const character of text) {
    const mark = joiners.has(at) ? null : markOf(character);
    if (mark !== null) {
      if (at > start) found.push({ text: text.slice(start, at), mark: null });
      found.push({ text: character, mark });
      start = at + character.length;
    }
    at += character.length;
  }
  if (start < text.length) found.push({ text: text.slice(start), mark: null });
  return found;
}

function markOf(character) {
  if (character === "\n") return NEWLINE;
  if (character === "\t") return TAB;
  if (!FORMATS.test(character)) return null;
  return `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}

/** Returns one token as a label that stands alone: with a mark for each space at its ends. */
export function label(token, pieces) {
  const piece = pieces.get(token);
  if (piece === undefined) return `#${token}`;
  if (piece.bytes.length === 0) return "(empty)";
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(piece.bytes);
  } catch {
    return hexadecimal(piece.bytes);
  }
  return labelOfText(text);
}

/** Returns a text as a label: what cannot be seen is replaced by its mark. */
export function labelOfText(text) {
  const ends = /^( *)(.*?)( *)$/su.exec(text);
  const middle = segments(ends[2]).map(({ text: part, mark }) => mark ?? part);
  return SPACE.repeat(ends[1].length) + middle.join("") + SPACE.repeat(ends[3].length);
}
