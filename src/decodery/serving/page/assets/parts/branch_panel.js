// Lets a text go on from any of its places: by a candidate that was clicked, or drawn again. Keeps the tree of what came.

import { continuation, endingOf, homeOf } from "../core/branches.js";
import { element } from "../core/dom.js";
import { newSeed } from "../core/runs.js";
import { label } from "../core/spelling.js";
import { mountBranchTree } from "./branch_tree.js";

/**
 * Answers "branch" and "position" events that reach `scope`, and shows the tree of the open text in `place`.
 * @param {HTMLElement} place
 * @param {HTMLElement} scope the element of the view, which the events of its tokens and inspector reach
 * @param {object} app
 * @param {{open(run: object, stream: object): void, step?(run: object, stream: object, count: number): void}} to
 *   `open` shows another run, `step` goes on one token at a time after so many tokens
 * @returns {{show(run: object, stream: object): void, hide(): void}}
 */
export function mountBranches(place, scope, app, { open, step = null }) {
  const status = element("p", { class: "small", role: "status" });
  const from = element("span", { class: "dim" });
  const again = element("button", { type: "button", text: "Draw again from here", on: { click: drawAgain } });
  const onward = element("button", { type: "button", text: "Write on", on: { click: writeOn } });
  const steps = element("button", { type: "button", text: "One token at a time", on: { click: stepOn }, hidden: step === null });
  const bar = element("div", { class: "row from-here", role: "group", "aria-label": "Go on from a token" }, from, again, steps, onward);
  const tree = element("section", { class: "sheet branch-tree", "aria-label": "Branches" });
  place.append(bar, status, tree);
  const shownTree = mountBranchTree(tree, app);
  let shown = null;
  let at = null;

  scope.addEventListener("branch", ({ detail }) => branch(detail));
  scope.addEventListener("position", ({ detail }) => {
    if (detail.kind === "hover" || detail.run !== shown?.run) return;
    at = detail.index;
    showPlace();
  });
  scope.addEventListener("open", ({ detail }) => open(detail.run, detail.stream));

  function showPlace() {
    const position = shown?.stream.positions[at ?? -1];
    from.textContent = position === undefined ? "" : `Token ${at + 1}, ${label(position.token, shown.run.pieces)}:`;
    again.disabled = position === undefined;
    again.textContent = position === undefined ? "Draw again from a token" : "Draw again from here";
  }

  function start(home, position, token, request) {
    const parent = { run: home.run.id, stream: home.stream.index, position, token };
    const [run] = app.runs.start({ model: home.run.model, requests: [request], parent });
    run.addEventListener("change", function refused() {
      if (run.state !== "failed" || run.streams.some(({ positions }) => positions.length > run.generated)) return;
      run.removeEventListener("change", refused);
      app.notify(run.error, "error");
      app.runs.remove(run);
      if (shown?.run === run) open(home.run, home.stream);
    });
    open(run, run.stream(0));
  }

  /**
   * Goes on with this token in place of the one at `index`, or after the `tokens` of a beam; opens the branch that
   * already did.
   */
  function branch({ run, stream, index, token, tokens = null }) {
    if (tokens !== null) {
      branchFromBeam(run, tokens);
      return;
    }
    const from = typeof stream === "number" ? run.stream(stream) : stream;
    const home = homeOf((id) => app.runs.get(id), run, from, index);
    const known = app.runs.list().find(
      ({ parent }) =>
        parent?.run === home.run.id && parent.stream === home.stream.index && parent.position === index && parent.token === token,
    );
    if (known !== undefined) open(known, known.stream(0));
    else start(home, index, token, continuation(home.run, home.stream, index, [token]));
  }

  function branchFromBeam(run, tokens) {
    const best = run.stream(0);
    const given = run.generated;
    let place = given;
    while (place - given < tokens.length && best.positions[place]?.token === tokens[place - given]) place += 1;
    const request = continuation(run, best, given, tokens);
    start({ run, stream: best }, place, tokens[place - given] ?? null, { ...request, title: `beam after ${label(tokens.at(-1), run.pieces)}` });
  }

  function drawAgain() {
    const home = homeOf((id) => app.runs.get(id), shown.run, shown.stream, at);
    start(home, at, null, continuation(home.run, home.stream, at, [], { seed: newSeed() }));
  }

  /** Goes on at the end; where the limit of tokens was reached, with room for as many again. */
  function writeOn() {
    const { run, stream } = shown;
    const count = stream.positions.length;
    const most = run.params.max_tokens ?? null;
    const changes = most !== null && count >= most ? { max_tokens: count + most } : {};
    start(shown, count, null, { ...continuation(run, stream, count, [], changes), title: `on from ${count + 1}` });
  }

  function stepOn() {
    step(shown.run, shown.stream, at ?? shown.stream.positions.length);
  }

  function update() {
    const { run, stream } = shown;
    status.textContent = run.ended ? endingOf(run, stream) : "";
    // What has stopped by itself has no more to say.
    onward.disabled = !run.ended || stream.positions.length === 0 || stream.finishReason === "stop";
    steps.disabled = !run.ended;
    bar.hidden = stream.positions.length === 0;
  }

  return {
    show(run, stream) {
      shown?.run.removeEventListener("change", update);
      shown = { run, stream };
      at = null;
      run.addEventListener("change", update);
      shownTree.show(run, stream);
      showPlace();
      update();
    },
    hide() {
      shown?.run.removeEventListener("change", update);
      shown = null;
      shownTree.hide();
    },
  };
}
