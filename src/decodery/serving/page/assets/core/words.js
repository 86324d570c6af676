// Finds the word of a text around a place, and the text without it.

const words = new Intl.Segmenter(undefined, { granularity: "word" });

/** Returns the range in UTF-16 of the word at an index, or of the sign that stands there; a space belongs to the word after it. */
export function wordAt(text, index) {
  let at = index;
  while (at < text.length - 1 && /\s/u.test(text[at])) at += 1;
  let start = at;
  let end = at;
  while (start > 0 && !/\s/u.test(text[start - 1])) start -= 1;
  while (end < text.length && !/\s/u.test(text[end])) end += 1;
  const found = words.segment(text.slice(start, end)).containing(at - start);
  if (found === undefined) return [at, text.length];
  return [start + found.index, start + found.index + found.segment.length];
}

/** Returns a text without a range; of the spaces beside it, one goes too. */
export function without(text, [start, end]) {
  const before = text.slice(0, start);
  const after = text.slice(end);
  if (/\s$/u.test(before) && (after === "" || /^[\s\p{P}]/u.test(after))) return before.replace(/\s$/u, "") + after;
  if (before === "" || /\s$/u.test(before)) return before + after.replace(/^\s/u, "");
  return before + after;
}
