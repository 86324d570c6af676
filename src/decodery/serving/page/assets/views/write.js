// The view in which one writes a prompt and reads what the model adds, token by token.

import { element } from "../core/dom.js";
import { renderBeamTree } from "../parts/beam_tree.js";
import { mountBranches } from "../parts/branch_panel.js";
import { mountCursorMenu } from "../parts/cursor_menu.js";
import { mountStepper } from "../parts/stepper.js";
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
  const more = element("div", { class: "row" });
  const steps = element("section", { class: "sheet", "aria-label": "One token at a time" });
  const beams = element("section", { class: "sheet", "aria-label": "Beams", hidden: true });
  const branches = element("div");
  place.append(form, more, tokens, steps, beams, branches, inspector);
  const stepper = mountStepper(steps, app, { open });
  const tree = mountBranches(branches, place, app, { open, step: stepper.goOn });
  const oneByOne = () => stepper.begin({ prompt: prompt.value, params: DEFAULT_PARAMS });
  more.append(element("button", { type: "button", text: "One token at a time", on: { click: oneByOne } }));
  mountCursorMenu(more, prompt, app, { write: (asked) => begin(asked.prompt, DEFAULT_PARAMS, asked.suffix) });
  let close = () => {};

  function begin(text, params, suffix) {
    stepper.close();
    const [run] = app.runs.start({ model: app.models.current, requests: [{ prompt: text, suffix, params }] });
    open(run, run.stream(0));
  }

  /** Shows a text in place of the one before. */
  function open(run, stream) {
    close();
    const shown = renderTokens(tokens, run, stream);
    const update = () => {
      tokens.dataset.state = run.state;
      beams.hidden = run.steps.length === 0;
    };
    run.addEventListener("change", update);
    update();
    const shownBeams = renderBeamTree(beams, run);
    tree.show(run, stream);
    if (stepper.run !== run) stepper.close();
    close = () => {
      shown.close();
      shownBeams.close();
      run.removeEventListener("change", update);
    };
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
