// Says how a text goes on from one of its places, and how the texts that did so belong together.

import { Position } from "./run.js";
import { label, labelOfText, Speller } from "./spelling.js";

/**
 * Returns what `runs.start` takes to go on after the first `count` tokens of a stream and the `picked` tokens.
 *
 * The request has the parent's ids, parameters and seed, and the server treats the text so far as generated
 * (docs/trace.md, `generated`). A draw depends on the seed, the completion and the position alone: so the branch
 * draws with the noise that the parent had there.
 * @param {import("./run.js").Run} run
 * @param {import("./run.js").Stream} stream
 * @param {number} count
 * @param {number[]} [picked]
 * @param {object} [changes] parameters that differ from the run's
 */
export function continuation(run, stream, count, picked = [], changes = {}) {
  const given = stream.positions.slice(0, count);
  picked.forEach((token, i) => given.push(pickedPosition(i === 0 ? stream.positions[count] : undefined, token)));
  const params = { ...run.params, seed: run.seed, ...changes };
  // A new seed draws anew: then it does not matter which completion the text was.
  const drawn = changes.seed === undefined ? completionOf(run, stream) : null;
  if (drawn === null && severalDrawn(run)) Object.assign(params, { n: 1, best_of: null });
  return {
    prompt: [...run.promptTokenIds, ...given.map(({ token }) => token)],
    params,
    generated: given.length,
    stream: drawn,
    given,
    pieces: run.pieces,
    messages: run.messages,
    title: picked.length > 0 ? `${label(picked[0], run.pieces)} at ${count + 1}` : `again from ${count + 1}`,
  };
}

/** Returns which of several completions draws a stream's tokens; null where there is one alone, or beams. */
export function completionOf(run, stream) {
  if (run.drawn !== null) return run.drawn;
  return severalDrawn(run) ? stream.index : null;
}

function severalDrawn({ params }) {
  const beams = ["beam_search", "stochastic_beam_search"].includes(params.strategy?.type);
  return !beams && Math.max(params.n ?? 1, params.best_of ?? 1) > 1;
}

function pickedPosition(position, token) {
  const choice = position === undefined ? null : pickedChoice(position.choice, token);
  return new Position(token, choice, { picked: true });
}

/** Returns a choice as if this candidate of it had been chosen; null where its numbers are not known. */
export function pickedChoice(choice, token) {
  if (choice === null) return null;
  const place = choice.candidates.findIndex((candidate) => candidate.token === token);
  if (place < 0) return null;
  if (choice.token === token) return choice;
  const { before, after } = choice.candidates[place];
  // The candidates are the likeliest in order; only a chosen one that is none of them is appended.
  return { ...choice, token, before, after, rank: place + 1, forced: false };
}

/**
 * Returns the run and stream that the place belongs to: the one that was there first. A token that was picked to make
 * a branch belongs to the branch's parent, so that another one in its place makes a sibling.
 */
export function homeOf(get, run, stream, index) {
  let home = { run, stream };
  while (isBefore(index, home.run.parent)) {
    const parent = get(home.run.parent.run);
    if (parent === undefined) break;
    home = { run: parent, stream: parent.stream(home.run.parent.stream) };
  }
  return home;
}

function isBefore(index, parent) {
  return parent !== null && (index < parent.position || (index === parent.position && parent.token !== null));
}

/** Returns how many first tokens two streams share. */
export function partingPoint(first, second) {
  const [a, b] = [first.positions, second.positions];
  let i = 0;
  while (i < a.length && i < b.length && a[i].token === b[i].token) i += 1;
  return i;
}

/** Returns the run at the top of a run's tree. */
export function rootOf(get, run) {
  let root = run;
  while (root.parent !== null && get(root.parent.run) !== undefined) root = get(root.parent.run);
  return root;
}

/**
 * Returns the tree below a run: `pieces` of its text in order, the branches that part after each, and `count`, the
 * number of runs in it.
 * @typedef {{run: object, stream: number, from: number, pieces: {from: number, to: number, branches: Tree[]}[],
 *   count: number}} Tree
 * @param {import("./run.js").Run[]} runs all runs, oldest first
 * @returns {Tree}
 */
export function treeOf(runs, run, stream = 0, from = 0) {
  const children = runs.filter(({ parent }) => parent?.run === run.id && parent.stream === stream);
  const places = [...new Set(children.map(({ parent }) => parent.position))].sort((a, b) => a - b);
  const length = run.streams[stream]?.positions.length ?? 0;
  const pieces = places.map((place, i) => ({
    from: i === 0 ? from : places[i - 1],
    to: place,
    branches: children
      .filter(({ parent }) => parent.position === place)
      .flatMap((child) => allStreams(child).map((index) => treeOf(runs, child, index, place))),
  }));
  pieces.push({ from: places.at(-1) ?? from, to: length, branches: [] });
  const below = pieces.flatMap(({ branches }) => branches);
  return { run, stream, from, pieces, count: 1 + below.reduce((sum, { count }) => sum + count, 0) };
}

/** Returns the indices of a run's streams; a run without any yet has its first. */
export function allStreams(run) {
  return run.streams.length === 0 ? [0] : run.streams.map(({ index }) => index);
}

/** Returns the parent that a branch gets when its own parent is removed. */
export function adopted(child, removed) {
  if (removed.parent === null) return null;
  const position = Math.min(child.parent.position, removed.parent.position);
  return { ...removed.parent, position, token: child.streams[0]?.positions[position]?.token ?? child.parent.token };
}

/** Returns the text that the tokens from one position up to another add, after those before them. */
export function textBetween(run, stream, from, to) {
  const speller = new Speller(run.pieces);
  const texts = stream.positions.slice(0, to).map(({ token }) => speller.push(token).text);
  return texts.slice(from).join("");
}

/** Returns how a stream ended, in words; "" while it has not. */
export function endingOf(run, stream) {
  const last = stream.positions.at(-1);
  if (run.state === "failed") return `failed: ${run.error}`;
  if (stream.finishReason === "stop") {
    if (typeof stream.stopReason === "string") return `stopped by ${labelOfText(stream.stopReason)}`;
    const ended = last !== undefined && (run.pieces.get(last.token)?.special || stream.stopReason === last.token);
    return ended ? `ended by ${label(last.token, run.pieces)}` : "complete";
  }
  if (stream.finishReason === "length") return "reached the limit of tokens";
  if (stream.finishReason) return stream.finishReason;
  return run.state === "cut" ? "cut off" : "";
}

/** Returns the text of a run's prompt, which a branch has of the text that it left; null where it was never told. */
export function promptText(get, run) {
  let at = run;
  while (at.prompt === null && at.parent !== null && get(at.parent.run) !== undefined) at = get(at.parent.run);
  return at.prompt;
}

/** Returns a run's name, as the tree and the menus show it. */
export function nameOf(run, stream = 0) {
  const name = run.title || (run.parent === null ? "First text" : "Branch");
  return run.streams.length > 1 ? `${name} (${stream + 1})` : name;
}
