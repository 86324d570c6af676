// Finds where texts that begin alike part.

/**
 * A text as a sequence: of token ids, where all texts have the same tokenizer, else of bytes.
 * @typedef {{units: number[], ended: boolean, tokenOf(unit: number): number}} Sequence
 *   `ended` says that no more comes; `tokenOf` returns the place of the token that a unit belongs to
 */

/**
 * A place at which texts part: `members` are alike up to `unit`, where they divide into `groups`.
 * @typedef {{members: number[], unit: number, groups: number[][]}} Parting
 */

/** Returns the sequence of a stream's token ids. @returns {Sequence} */
export function idsOf(stream) {
  return { units: stream.tokens, ended: stream.finishReason !== null, tokenOf: (unit) => unit };
}

/** Returns the sequence of a stream's bytes. @returns {Sequence} */
export function bytesOf(stream, pieces) {
  const units = [];
  const places = [];
  stream.tokens.forEach((token, place) => {
    for (const byte of pieces.get(token)?.bytes ?? []) {
      units.push(byte);
      places.push(place);
    }
  });
  return { units, ended: stream.finishReason !== null, tokenOf: (unit) => places[unit] ?? stream.tokens.length };
}

/** Returns where sequences part, from the first place on. One that has not come so far parts from none yet. */
export function partings(sequences) {
  const found = [];
  const waiting = [{ members: sequences.map((_, i) => i), from: 0 }];
  while (waiting.length > 0) {
    const { members, from } = waiting.shift();
    const parting = firstParting(sequences, members, from);
    if (parting === null) continue;
    found.push(parting);
    for (const group of parting.groups) if (group.length > 1) waiting.push({ members: group, from: parting.unit });
  }
  return found.sort((one, other) => one.unit - other.unit);
}

function firstParting(sequences, members, from) {
  for (let unit = from; ; unit += 1) {
    const there = members.filter((i) => unit < sequences[i].units.length || sequences[i].ended);
    if (there.length < 2) return null;
    if (there.every((i) => unit >= sequences[i].units.length)) return null;
    const groups = new Map();
    for (const i of there) {
      // An end is a unit too, which no text goes on from.
      const value = unit < sequences[i].units.length ? sequences[i].units[unit] : "end";
      groups.set(value, [...(groups.get(value) ?? []), i]);
    }
    if (groups.size > 1) return { members: there, unit, groups: [...groups.values()] };
  }
}

/** Returns how many tokens of each sequence are common to all: those before the first parting, or those that all have. */
export function commonTokens(sequences, found) {
  const shortest = Math.min(...sequences.map(({ units }) => units.length));
  const unit = Math.min(shortest, found[0]?.unit ?? Infinity);
  return sequences.map(({ tokenOf }) => tokenOf(unit));
}
