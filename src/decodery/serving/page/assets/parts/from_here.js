// Offers, for the token that is open, to go on from there; and shows what the strategy computed for it.

import { promptText } from "../core/branches.js";
import { Brancher } from "../core/brancher.js";
import { element } from "../core/dom.js";
import { MOST_TOKENS } from "../core/layer_views.js";
import { renderStrategy } from "./strategy_section.js";

/** Mounts the piece. Dispatches "step" {run, stream, count} to go on one token at a time. */
export function mountFromHere(place, app) {
  const brancher = new Brancher(app);
  const again = element("button", { type: "button", text: "Draw again from here", on: { click: () => brancher.drawAgain(shown.run, shown.stream, shown.index) } });
  const steps = element("button", { type: "button", text: "Choose one at a time from here", on: { click: step } });
  const onward = element("button", { type: "button", text: "Write on at the end", on: { click: () => brancher.writeOn(shown.run, shown.stream) } });
  const layers = element("button", { type: "button", text: "Look into the layers", on: { click: look } });
  const bar = element("div", { class: "row from-here", role: "group", "aria-label": "Go on from this token", hidden: true }, again, steps, onward, layers);
  const strategy = element("div", { hidden: true });
  place.append(strategy, bar);
  let shown = null;
  strategy.addEventListener("click", ({ target }) => {
    const chosen = target.closest("[data-token-id]");
    if (chosen === null) return;
    const detail = { ...shown, token: Number(chosen.dataset.tokenId) };
    place.dispatchEvent(new CustomEvent("branch", { bubbles: true, detail }));
  });

  function step() {
    const detail = { run: shown.run, stream: shown.stream, count: shown.index };
    place.dispatchEvent(new CustomEvent("step", { bubbles: true, detail }));
  }

  /** Shows what the layers do with the open token. */
  function look() {
    const { run, stream, index } = shown;
    app.models.choose(run.model);
    const text = (promptText((id) => app.runs.get(id), run) ?? "") + stream.text;
    app.open("layers", { ids: [...run.promptTokenIds, ...stream.tokens], text, place: run.promptTokenIds.length + index });
  }

  function update() {
    const { run, stream, index } = shown;
    layers.disabled = run.promptTokenIds.length + index >= MOST_TOKENS || !app.models.list.includes(run.model);
    layers.title = layers.disabled ? `Texts of up to ${MOST_TOKENS} tokens can be looked at, with a model of this server.` : "";
    bar.hidden = false;
    for (const button of [again, steps]) button.disabled = !run.ended;
    // What has stopped by itself has no more to say.
    onward.disabled = !run.ended || stream.finishReason === "stop";
  }

  return {
    show(run, stream, index) {
      shown?.run.removeEventListener("change", update);
      shown = { run, stream, index };
      run.addEventListener("change", update);
      update();
      renderStrategy(strategy, run, stream.positions[index]);
    },
  };
}
