// Shows one run: its prompt, the text of each of its streams token by token, and how it stands.

import { promptText } from "../core/branches.js";
import { element } from "../core/dom.js";
import { ending, standing } from "../core/run_words.js";
import { renderTokens } from "./token_text.js";

// A prompt of so many characters stands before its text in one paragraph.
const INLINE = 2000;

/**
 * Shows a run and what comes to it.
 * @param {{prompt?: boolean, colour?: string, grown?: () => void}} [options] `grown` is called after content was added
 * @returns {{element: HTMLElement, setColour(colour: string): void, open(stream: number, index: number): void,
 *   close(): void}}
 */
export function runView(run, app, { prompt = true, colour = "surprise", grown = () => {} } = {}) {
  const texts = element("div", { class: "streams" });
  const bar = element("progress", { class: "prefill", "aria-label": "Read so far", hidden: true });
  const state = element("p", { class: "standing small dim", role: "status" });
  const error = element("p", { class: "wrong", role: "alert", hidden: true });
  const article = element("article", { class: "run", "data-run": run.id, "aria-busy": "true" });
  const asked = promptText((id) => app.runs.get(id), run);
  const inline = prompt && asked !== null && asked.length <= INLINE && severalOf(run.params) === 1;
  if (prompt && !inline) article.append(promptOf(run, asked, app));
  if (!prompt) article.append(element("h2", { class: "speaker", text: run.model || "Model" }));
  article.append(texts, bar, error, state);
  const shown = [];

  function addStreams() {
    for (const stream of run.streams.slice(shown.length)) {
      const place = element("span", { role: "group", "aria-label": `Text ${stream.index + 1}: the arrow keys go from token to token` });
      const end = element("p", { class: "ending small dim" });
      const before = inline ? element("span", { class: "prompt-inline", text: asked }) : null;
      const section = element("section", { class: "stream" }, element("div", { class: "flow", dir: "auto" }, before, place), end);
      texts.append(section);
      shown.push({ stream, section, end, tokens: renderTokens(place, run, stream, { colour }) });
    }
    texts.classList.toggle("several", shown.length > 1);
  }

  function update() {
    addStreams();
    for (const { stream, end } of shown) setText(end, ending(run, stream));
    article.dataset.state = run.state;
    article.setAttribute("aria-busy", String(!run.ended));
    setText(state, standing(run));
    setText(error, run.state === "failed" || run.state === "cut" ? (run.error ?? "") : "");
    error.hidden = error.textContent === "";
    bar.hidden = run.state !== "prefill";
    if (run.progress !== null && !bar.hidden) Object.assign(bar, { max: run.progress.prompt, value: run.progress.computed });
    grown();
  }

  run.addEventListener("change", update);
  update();
  return {
    element: article,
    setColour(value) {
      colour = value;
      for (const { tokens } of shown) tokens.setColour(value);
    },
    open: (stream, index) => shown[stream]?.tokens.open(index),
    mark: (stream, index) => shown[stream]?.tokens.mark(index),
    close() {
      run.removeEventListener("change", update);
      for (const { tokens } of shown) tokens.close();
      article.remove();
    },
  };
}

/** Returns how many texts the parameters ask for, at least. */
function severalOf({ n, best_of: best, strategy }) {
  return Math.max(n ?? 1, best ?? 1, strategy?.num_return_sequences ?? 1, strategy?.type === "stochastic_beam_search" ? 2 : 1);
}

function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

/** Returns the prompt's text; one that was given as ids is asked of the server. */
function promptOf(run, asked, app) {
  const text = element("div", { class: "prompt-text", dir: "auto", tabindex: 0, role: "group", "aria-label": "Prompt" });
  if (asked !== null) {
    text.textContent = asked;
    return text;
  }
  text.textContent = `${run.promptTokenIds.length} tokens`;
  const show = async () => {
    // A run of another server may name a model that is not here; and the list may not be here yet.
    if (!app.models.list.includes(run.model)) return;
    app.models.removeEventListener("change", show);
    try {
      text.textContent = (await app.api.json("/detokenize", { model: run.model, tokens: run.promptTokenIds })).prompt;
    } catch {
      // The number of tokens stands there.
    }
  };
  app.models.addEventListener("change", show);
  show();
  return text;
}
