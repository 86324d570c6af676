// Builds the tree of a beam search from the candidates of its steps, and says why each ended where it did.

import { decimal } from "./figures.js";

/**
 * One candidate of a step.
 * @typedef {{index: number, step: number, parent: number | null, token: number, logprob: number, score: number,
 *   fate: "kept" | "finished" | "pruned", share: number, children: number[], pruned: number | null,
 *   returned: number | null, chosen: boolean}} Node
 *   `step` counts from 0. `share` is its probability divided by that of the step's likeliest. `pruned` is the step, from
 *   1, that pruned it. `returned` is the number of the completion that ends here, `chosen` says that one passes here.
 */

/** @param {import("./run.js").Run} run @returns {{nodes: Node[], roots: number[], steps: number}} */
export function beamTree({ steps, streams, generated }) {
  const nodes = [];
  const roots = [];
  let parents = new Map();
  steps.forEach((candidates, step) => {
    const best = Math.max(...candidates.map(({ score }) => score));
    const kept = new Map();
    for (const { parent: place, token, logprob, score, fate, beam } of candidates) {
      const parent = parents.get(place) ?? null;
      const index = nodes.length;
      const pruned = fate === "pruned" ? step + 1 : null;
      const share = Math.exp(Math.max(score - best, -700));
      nodes.push({ index, step, parent, token, logprob, score, fate, share, children: [], pruned, returned: null, chosen: false });
      (parent === null ? roots : nodes[parent].children).push(index);
      if (fate === "kept" && beam !== undefined && beam !== null) kept.set(beam, index);
    }
    parents = kept;
  });
  const tree = { nodes, roots, steps: steps.length };
  markReturned(tree, streams, generated);
  for (const node of nodes) {
    const goesOn = node.children.some((child) => nodes[child].fate !== "pruned");
    if (node.fate === "kept" && node.step < steps.length - 1 && !goesOn && node.returned === null) node.pruned = node.step + 2;
  }
  return tree;
}

/** Returns the tokens from the first step up to a node. */
export function tokensTo({ nodes }, index) {
  const tokens = [];
  for (let at = index; at !== null; at = nodes[at].parent) tokens.unshift(nodes[at].token);
  return tokens;
}

function markReturned(tree, streams, generated) {
  const wanted = new Map();
  for (const { index, positions, finishReason } of [...streams].reverse()) {
    if (finishReason !== null && finishReason !== "error") wanted.set(positions.slice(generated).map(({ token }) => token).join(), index);
  }
  for (const node of tree.nodes) {
    if (node.fate === "pruned" || (node.fate === "kept" && node.step < tree.steps - 1)) continue;
    const tokens = tokensTo(tree, node.index);
    // A completion's ids may or may not include the token that ended it.
    const key = [tokens, tokens.slice(0, -1)].map((ids) => ids.join()).find((ids) => wanted.has(ids));
    if (key === undefined) continue;
    node.returned = wanted.get(key);
    wanted.delete(key);
    for (let at = node.index; at !== null; at = tree.nodes[at].parent) tree.nodes[at].chosen = true;
  }
}

/**
 * Returns the tree as it is read: a chain of nodes, and after each of them what parts from it; the branch that leads
 * to the best text goes on in the chain.
 * @typedef {{nodes: Node[], pieces: {nodes: Node[], parting: Chain[], dropped: Node[]}[]}} Chain
 *   `dropped` are candidates that were pruned at once, after the piece's last node
 * @returns {Chain[]} the chains that begin at the prompt, the main one first
 */
export function chains(tree, indices = tree.roots) {
  const living = indices.map((index) => tree.nodes[index]).filter(({ fate }) => fate !== "pruned");
  return living.sort((a, b) => rank(tree, a) - rank(tree, b)).map((node) => chain(tree, node));
}

/** Returns the candidates among these that were pruned at once, best first. */
export function dropped(tree, indices = tree.roots) {
  return indices.map((index) => tree.nodes[index]).filter(({ fate }) => fate === "pruned").sort((a, b) => b.score - a.score);
}

function chain(tree, first) {
  const pieces = [];
  let piece = { nodes: [], parting: [], dropped: [] };
  for (let node = first; node !== null; ) {
    piece.nodes.push(node);
    piece.dropped.push(...dropped(tree, node.children));
    const onward = node.children.map((index) => tree.nodes[index]).filter(({ fate }) => fate !== "pruned");
    onward.sort((a, b) => rank(tree, a) - rank(tree, b));
    if (onward.length > 1) {
      piece.parting = onward.slice(1).map((other) => chain(tree, other));
      pieces.push(piece);
      piece = { nodes: [], parting: [], dropped: [] };
    }
    node = onward[0] ?? null;
  }
  if (piece.nodes.length > 0) pieces.push(piece);
  return { nodes: pieces.flatMap(({ nodes }) => nodes), pieces };
}

/** Returns a number by which nodes are ordered: those that lead to the best returned text come first. */
function rank(tree, node) {
  const reached = reach(tree, node);
  // Below all that are returned: what lived longest, then what scored best.
  return reached.returned ?? 1e6 + (tree.steps - reached.step) * 1e3 - Math.max(node.score, -500);
}

function reach(tree, node) {
  const cache = (tree.reach ??= new Map());
  if (!cache.has(node.index)) {
    // Nodes come after their parents: going backwards, each has been counted before its parent.
    for (const { index, step, returned, parent } of [...tree.nodes].reverse()) {
      const own = cache.get(index) ?? { step, returned: null };
      if (returned !== null) own.returned = Math.min(own.returned ?? Infinity, returned);
      cache.set(index, own);
      if (parent === null) continue;
      const above = cache.get(parent) ?? { step: 0, returned: null };
      above.step = Math.max(above.step, own.step);
      if (own.returned !== null) above.returned = Math.min(above.returned ?? Infinity, own.returned);
      cache.set(parent, above);
    }
  }
  return cache.get(node.index);
}

/** Returns why a candidate went no further, or what became of it, in words. */
export function fateOf(tree, node) {
  const step = tree.nodes.filter((other) => other.step === node.step);
  if (node.returned !== null) return `ended: returned as text ${node.returned + 1}`;
  if (node.fate === "finished") return "ended: other texts that ended score better";
  if (node.fate === "kept" && node.pruned !== null) return `none of its continuations was kept at step ${node.pruned}`;
  if (node.fate === "kept") return "kept";
  const kept = step.filter(({ fate }) => fate === "kept").map(({ score }) => score);
  if (kept.length === 0) return "the search ended here";
  const worst = Math.min(...kept);
  if (node.score < worst) return `score ${decimal(node.score)} is below that of the worst kept one, ${decimal(worst)}`;
  return "its place went to another, of its group of beams or with forced phrases";
}
