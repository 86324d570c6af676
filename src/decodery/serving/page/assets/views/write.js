// The view in which one writes a prompt and reads what the model adds, token by token.

import { element } from "../core/dom.js";
import { renderTokens } from "../parts/token_text.js";

const DEFAULT_PROMPT = "Once upon a time";
const DEFAULT_PARAMS = { max_tokens: 40, temperature: 0.8, seed: 7 };

export const view = { name: "write", title: "Write", mount };

function mount(place, app) {
  const prompt = element("textarea", { id: "prompt", rows: 3, value: DEFAULT_PROMPT });
  const send = element("button", { type: "submit", class: "primary", text: "Write" });
  const form = element("form", { class: "row" }, element("label", { class: "unseen", for: "prompt", text: "Prompt" }), prompt, send);
  const tokens = element("div", { id: "text", role: "group", "aria-label": "Text" });
  const inspector = element("div", { id: "inspector" });
  place.append(form, tokens, inspector);

  function begin(text, params) {
    const [run] = app.runs.start({ model: app.models.current, requests: [{ prompt: text, params }] });
    renderTokens(tokens, run, run.stream(0));
    tokens.dataset.state = run.state;
    run.addEventListener("change", () => {
      tokens.dataset.state = run.state;
    });
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    begin(prompt.value, DEFAULT_PARAMS);
  });
  return {
    show(args) {
      if (args.prompt !== undefined) {
        prompt.value = args.prompt;
        begin(args.prompt, args.params ?? DEFAULT_PARAMS);
      } else if (app.runs.list().length === 0) {
        begin(DEFAULT_PROMPT, DEFAULT_PARAMS);
      }
    },
    hide() {},
  };
}
