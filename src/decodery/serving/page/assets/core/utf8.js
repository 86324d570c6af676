// Maps between the bytes of a text's UTF-8, which the server counts, and JavaScript's indices of UTF-16.

const encoder = new TextEncoder();

/** Returns a text as the server reads it: each lone half of a surrogate pair is U+FFFD. */
export function wellFormed(text) {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(encoder.encode(text));
}

/** Returns the number of bytes of a text. */
export function byteLength(text) {
  return encoder.encode(text).length;
}

/** Returns the index of each byte of a well-formed text, and the text's length at the end.
 *
 * A byte inside a character has the index of that character.
 */
export function indicesOfBytes(text) {
  const indices = new Uint32Array(byteLength(text) + 1);
  let byte = 0;
  for (let i = 0; i < text.length; ) {
    const code = text.codePointAt(i);
    const bytes = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    indices.fill(i, byte, byte + bytes);
    byte += bytes;
    i += bytes === 4 ? 2 : 1;
  }
  indices[byte] = text.length;
  return indices;
}

/**
 * Returns the slice [from, to] of a text, in UTF-16, that holds the bytes of a span: whole characters.
 * @param {Uint32Array} indices of `indicesOfBytes`
 */
export function sliceOfSpan([start, end], indices) {
  if (start === end) return [indices[start], indices[start]];
  let last = end;
  // The next index that differs ends the character of the last byte.
  while (last < indices.length - 1 && indices[last] === indices[end - 1]) last += 1;
  return [indices[start], indices[last]];
}

/** Returns how many code points a text has. */
export function codePoints(text) {
  let count = 0;
  for (let i = 0; i < text.length; i += 1) {
    const unit = text.charCodeAt(i);
    if (unit < 0xdc00 || unit > 0xdfff) count += 1;
  }
  return count;
}
