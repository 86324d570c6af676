// Shows the tree of a text and of what went on from its places. A branch can be opened, named, compared and removed.

import { adopted, allStreams, endingOf, nameOf, rootOf, textBetween, treeOf } from "../core/branches.js";
import { element } from "../core/dom.js";
import { percent } from "../core/figures.js";
import { label } from "../core/spelling.js";
import { compareStreams } from "./branch_compare.js";
import { outlineItem } from "./outline.js";

const BEGIN = 90;
const END = 50;

/**
 * Shows the tree of the open run. Dispatches "open" {run, stream} when a branch is chosen.
 * @param {HTMLElement} place
 * @param {object} app
 * @returns {{show(run: object): void}}
 */
export function mountBranchTree(place, app) {
  const get = (id) => app.runs.get(id);
  const list = element("ul", { class: "branches outermost" });
  const compared = element("div", { class: "compared" });
  const other = element("select", { "aria-label": "Compare with" });
  const rename = element("button", { type: "button", text: "Rename", on: { click: askName } });
  const remove = element("button", { type: "button", text: "Remove", on: { click: removeOpen } });
  const tools = element("div", { class: "row" }, rename, remove, element("span", { class: "spread" }), other);
  const heading = element("h2", { text: "Branches" });
  place.append(heading, tools, list, compared);
  place.hidden = true;

  const name = element("input", { id: "branch-name", autocomplete: "off", maxlength: 200, required: true });
  const dialog = nameDialog(name, () => {
    open.run.title = name.value.trim();
    app.runs.add(open.run);
  });
  place.append(dialog);

  let open = null;
  let choices = [];
  const watched = new WeakSet();
  other.addEventListener("change", compare);
  list.addEventListener("click", ({ target }) => {
    const chosen = target.closest("[data-branch]");
    if (chosen !== null) openBranch(choices[Number(chosen.dataset.branch)]);
  });
  app.runs.addEventListener("change", update);

  function openBranch({ run, stream }) {
    place.dispatchEvent(new CustomEvent("open", { bubbles: true, detail: { run, stream } }));
  }

  function askName() {
    name.value = open.run.title;
    dialog.showModal();
    name.select();
  }

  function removeOpen() {
    const { run } = open;
    const parent = run.parent === null ? null : get(run.parent.run);
    const children = app.runs.list().filter((child) => child.parent?.run === run.id);
    const next = parent ?? children[0];
    const stream = parent === null || parent === undefined ? 0 : run.parent.stream;
    for (const child of children) {
      child.parent = adopted(child, run);
      app.runs.add(child);
    }
    app.runs.remove(run);
    if (next !== undefined) openBranch({ run: next, stream });
  }

  function compare() {
    compared.replaceChildren();
    const chosen = choices[Number(other.value)];
    if (other.value === "" || chosen === undefined) return;
    const sides = [open, chosen].map(({ run, stream }) => ({ run, stream: run.stream(stream) }));
    compared.append(compareStreams(sides));
  }

  function update() {
    if (open === null) return;
    if (get(open.run.id) === undefined) {
      open = null;
      place.hidden = true;
      return;
    }
    const root = rootOf(get, open.run);
    const trees = allStreams(root).map((stream) => treeOf(app.runs.list(), root, stream));
    choices = [];
    trees.forEach(watch);
    // A text without branches is no tree.
    place.hidden = trees.every(({ count }) => count === 1);
    list.replaceChildren(...trees.map((tree) => outlineItem(outlineOf(tree, open, choices))));
    showOthers();
  }

  /** Shows the tree again when a run of it goes on to another state, not with each of its tokens. */
  function watch({ run, pieces }) {
    if (!run.ended && !watched.has(run)) {
      watched.add(run);
      let { state } = run;
      run.addEventListener("change", () => {
        if (run.state === state) return;
        state = run.state;
        update();
      });
    }
    for (const { branches } of pieces) branches.forEach(watch);
  }

  function showOthers() {
    const kept = choices[Number(other.value)];
    const options = choices
      .map(({ run, stream }, i) => [run, stream, new Option(nameOf(run, stream), String(i))])
      .filter(([run, stream]) => run !== open.run || stream !== open.stream);
    other.replaceChildren(new Option("Compare with …", ""), ...options.map(([, , option]) => option));
    const again = choices.findIndex(({ run, stream }) => run === kept?.run && stream === kept?.stream);
    other.value = other.value === "" || again < 0 ? "" : String(again);
    compare();
  }

  return {
    show(run) {
      open = { run, stream: 0 };
      other.value = "";
      update();
    },
  };
}

function nameDialog(name, named) {
  const close = element("button", { type: "button", text: "Cancel", on: { click: () => dialog.close() } });
  const form = element(
    "form",
    { method: "dialog", on: { submit: named } },
    element("h2", { id: "branch-title", text: "Name of the branch" }),
    element("label", { class: "unseen", for: "branch-name", text: "Name" }),
    name,
    element("div", { class: "row end" }, close, element("button", { type: "submit", class: "primary", text: "Rename" })),
  );
  const dialog = element("dialog", { "aria-labelledby": "branch-title" }, form);
  return dialog;
}

function outlineOf(tree, open, choices) {
  const { run, stream } = tree;
  const number = choices.push({ run, stream }) - 1;
  const current = run === open.run && stream === open.stream;
  const shown = run.streams[stream];
  return {
    className: current ? "current" : "",
    head: headOf(tree, number, current),
    pieces: tree.pieces.map(({ from, to, branches }) => ({
      content: shown === undefined ? [] : pieceContent(run, shown, from, to, tree),
      branches: branches.map((branch) => outlineOf(branch, open, choices)),
    })),
  };
}

function headOf({ run, stream, count }, number, current) {
  const shown = run.streams[stream];
  const facts = [
    // Most texts end at the limit: that says nothing here.
    shown === undefined || shown.finishReason === "length" ? "" : endingOf(run, shown),
    run.ended ? "" : run.state,
    count > 1 ? `${count - 1} below` : "",
  ].filter((fact) => fact !== "");
  return element(
    "div",
    { class: "branch-head" },
    element("button", { type: "button", class: "plain", "data-branch": number, "aria-current": current ? "true" : null, text: nameOf(run, stream) }),
    element("span", { class: "dim small", text: facts.join(" · ") }),
  );
}

function pieceContent(run, stream, from, to, tree) {
  const content = [];
  let start = from;
  if (run.parent === null && from === 0 && run.prompt) {
    content.push(element("bdi", { class: "dim", text: shortened(run.prompt) }));
  }
  if (from === tree.from && to > from && run.parent !== null && stream.positions[from]?.picked) {
    const { token, choice } = stream.positions[from];
    content.push(element("span", { class: "picked", text: label(token, run.pieces) }));
    if (choice !== null) content.push(element("span", { class: "dim small number", text: ` ${percent(choice.before)} ` }));
    start += 1;
  }
  const text = shortened(textBetween(run, stream, start, to));
  if (text !== "") content.push(element("bdi", { text }));
  return content;
}

function shortened(text) {
  const characters = Array.from(text);
  if (characters.length <= BEGIN + END + 3) return text;
  return `${characters.slice(0, BEGIN).join("")} … ${characters.slice(-END).join("")}`;
}
