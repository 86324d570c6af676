// Defines votes on pairs of answers, how they are counted, and how they are written as lines.

export const VOTES = ["one", "other", "tie", "both_bad"];
// The quantile of the normal distribution for an interval of 95 %.
const QUANTILE = 1.959963984540054;

/**
 * One of two ways to decode: `name` and `model` tell it apart from others, `params` have the seed of the answer.
 * @typedef {{name: string, model: string, params: object}} Setting
 *
 * A person's vote on two answers to a question. `one` and `other` are the answers of the two settings, in the order of
 * `orderOf`; `shown_first` is the one that stood at the first place.
 * @typedef {{id: string, question: string, one: string, other: string, vote: "one" | "other" | "tie" | "both_bad",
 *   shown_first: "one" | "other", settings: {one: Setting, other: Setting}, chat: boolean, created: number}} Vote
 */

const TEXT = { type: "string" };
const SETTING = {
  type: "object",
  required: ["name", "model", "params"],
  properties: {
    // As long as its parameters: a grammar is one of them.
    name: TEXT,
    model: { type: "string", maxLength: 1000 },
    params: { type: "object", propertyNames: { pattern: "^[a-z][a-z0-9_]*$" } },
  },
};
export const VOTE_SCHEMA = {
  type: "object",
  required: ["id", "question", "one", "other", "vote", "shown_first", "settings"],
  properties: {
    id: { type: "string", maxLength: 100 },
    question: TEXT,
    one: TEXT,
    other: TEXT,
    vote: { enum: VOTES },
    shown_first: { enum: ["one", "other"] },
    settings: { type: "object", required: ["one", "other"], properties: { one: SETTING, other: SETTING } },
    chat: { type: "boolean" },
    created: { type: "number" },
  },
};

/** Returns the vote of a plain object that fits the schema, with the known fields alone. */
export function voteOf({ id, question, one, other, vote, shown_first, settings, chat = false, created = 0 }) {
  return { id, question, one, other, vote, shown_first, settings: { one: settings.one, other: settings.other }, chat, created };
}

/** Returns votes as the lines of a file that `decodery eval judge --votes` reads. */
export function toLines(votes) {
  return votes.map((vote) => `${JSON.stringify(vote)}\n`).join("");
}

/** Returns the number that orders two settings, so that the pair of them is the same whichever is named first. */
export function orderOf(one, other) {
  const [left, right] = [keyOf(one), keyOf(other)];
  return left < right ? -1 : left > right ? 1 : 0;
}

function keyOf({ name, model }) {
  return JSON.stringify([name, model]);
}

/**
 * What the votes on one pair of settings say. `first` counts the votes for the answer that was shown first, of the
 * `decided` ones, which are for one of the two.
 * @typedef {{settings: {one: Setting, other: Setting}, one: number, other: number, tie: number, both_bad: number,
 *   first: number, decided: number}} Tally
 */

/** @returns {Tally[]} the counts of each pair of settings, in the order of their first votes */
export function tallies(votes) {
  const found = new Map();
  for (const { settings, vote, shown_first } of votes) {
    const key = keyOf(settings.one) + keyOf(settings.other);
    if (!found.has(key)) found.set(key, { settings, one: 0, other: 0, tie: 0, both_bad: 0, first: 0, decided: 0 });
    const counts = found.get(key);
    counts[vote] += 1;
    if (vote !== "one" && vote !== "other") continue;
    counts.decided += 1;
    if (vote === shown_first) counts.first += 1;
  }
  return [...found.values()];
}

/**
 * Returns the ends of the 95 % interval of a share (Wilson 1927), `hits` of `count`; null where nothing was counted.
 * @returns {[number, number] | null}
 */
export function wilson(hits, count) {
  if (count === 0) return null;
  const share = hits / count;
  const square = QUANTILE ** 2 / count;
  const middle = share + square / 2;
  const half = QUANTILE * Math.sqrt((share * (1 - share)) / count + square / (4 * count));
  // Exactly 0 and 1 at the ends, where rounding would go beyond.
  const low = hits === 0 ? 0 : (middle - half) / (1 + square);
  const high = hits === count ? 1 : (middle + half) / (1 + square);
  return [low, high];
}
