// Shows a beam search as a tree that reads downwards: what the beams share stands once, what was pruned fades.

import { beamTree, chains, dropped, fateOf, tokensTo } from "../core/beams.js";
import { element } from "../core/dom.js";
import { decimal, percent } from "../core/figures.js";
import { label, Speller } from "../core/spelling.js";
import { folded, outlineItem, siblings } from "./outline.js";

/**
 * Shows the beams of a run in `place`, anew when steps are added.
 *
 * A candidate that is chosen shows its numbers, and a button that dispatches "branch" {run, tokens}: its tokens from
 * the first step on.
 * @returns {{close(): void}}
 */
export function renderBeamTree(place, run) {
  const facts = element("span", { role: "status", text: "Choose a token to see its numbers." });
  const go = element("button", { type: "button", text: "Go on from here", hidden: true, on: { click: branch } });
  const details = element("div", { class: "beam-details small" }, facts, go);
  const list = element("div", { class: "beams" });
  place.replaceChildren(list, details);
  let shown = -1;
  let tree = null;
  let chosen = null;

  function update() {
    if (run.steps.length === shown && !run.ended) return;
    shown = run.steps.length;
    tree = beamTree(run);
    list.replaceChildren(...content(tree, run));
  }

  function nodeOf(target) {
    const found = target.closest("[data-node]");
    return found === null ? null : tree.nodes[Number(found.dataset.node)];
  }

  function choose({ target }) {
    const node = nodeOf(target);
    if (node === null) return;
    chosen = node;
    facts.textContent = describe(tree, run, node);
    go.hidden = !run.ended;
  }

  function branch() {
    const tokens = tokensTo(tree, chosen.index);
    place.dispatchEvent(new CustomEvent("branch", { bubbles: true, detail: { run, tokens } }));
  }

  list.addEventListener("click", choose);
  list.addEventListener("focusin", choose);
  run.addEventListener("change", update);
  update();
  return {
    close() {
      run.removeEventListener("change", update);
      place.replaceChildren();
    },
  };
}

function content(tree, run) {
  const [main, ...others] = chains(tree);
  const parts = [element("h2", { text: "Beams" })];
  if (others.length > 0) parts.push(siblings(others.map((chain) => outlineOf(tree, run, chain))));
  const first = dropped(tree);
  if (first.length > 0) parts.push(droppedList(tree, run, first));
  if (main !== undefined) parts.push(element("ul", { class: "branches outermost" }, outlineItem(outlineOf(tree, run, main))));
  return parts;
}

function outlineOf(tree, run, chain) {
  const last = chain.nodes.at(-1);
  const speller = new Speller(run.pieces);
  for (const token of tokensTo(tree, chain.nodes[0].index).slice(0, -1)) speller.push(token);
  const out = chain.pieces.flatMap((piece) => piece.dropped);
  const pieces = chain.pieces.map(({ nodes, parting }) => ({
    content: nodes.map((node) => nodeElement(node, speller.push(node.token), run)),
    branches: parting.map((other) => outlineOf(tree, run, other)),
  }));
  pieces.at(-1).content.push(
    element("span", { class: "beam-end dim small number", text: ` ${decimal(last.score)} · ${shortFate(tree, last)} ` }),
    ...(out.length === 0 ? [] : [droppedList(tree, run, out)]),
  );
  return { className: last.pruned === null ? "living" : "pruned", head: null, pieces };
}

function shortFate(tree, { returned, pruned, fate }) {
  if (returned !== null) return `text ${returned + 1}`;
  if (pruned !== null) return `pruned at step ${pruned}`;
  return fate === "finished" ? "ended, not among the best" : "kept";
}

function nodeElement(node, { text, segments }, run) {
  const shown = segments.map(({ text: part, mark }) => (mark === null || part === "\n" ? part : mark)).join("");
  const made = element("button", {
    type: "button",
    class: `beam-token ${node.chosen ? "chosen" : ""}`,
    "data-node": node.index,
    "data-token-id": node.token,
    text: text === "" ? label(node.token, run.pieces) : shown,
  });
  made.style.setProperty("--share", String(node.share));
  return made;
}

function droppedList(tree, run, nodes) {
  const make = () =>
    element(
      "ul",
      { class: "dropped" },
      ...nodes.map((node) =>
        element(
          "li",
          {},
          element("button", { type: "button", class: "plain", "data-node": node.index, "data-token-id": node.token, text: label(node.token, run.pieces) }),
          element("span", { class: "small dim number", text: ` step ${node.step + 1} · ${percent(Math.exp(node.logprob))} · ${fateOf(tree, node)}` }),
        ),
      ),
    );
  return folded(`+${nodes.length} pruned`, make, { class: "pruned-here" });
}

/** Returns a node's numbers in words. */
export function describe(tree, run, node) {
  const token = label(node.token, run.pieces);
  return `Step ${node.step + 1}, ${token}: log-probability ${decimal(node.logprob)} (${percent(Math.exp(node.logprob))}), score ${decimal(node.score)}; ${fateOf(tree, node)}.`;
}
