// Stands above the field of the prompt: writes one token at a time, from the cursor, or between two texts.

import { element } from "../core/dom.js";
import { mountCursorMenu } from "./cursor_menu.js";
import { mountStepper } from "./stepper.js";

/**
 * @param {HTMLElement} place
 * @param {object} app
 * @param {{text: HTMLTextAreaElement, params(): object, start(request: object): void}} asking the prompt and the
 *   parameters of the view
 */
export function mountStepPiece(place, app, asking) {
  const panel = element("section", { "aria-label": "One token at a time", hidden: true });
  const menu = element("div", { class: "row prompt-menu" });
  place.append(panel, menu);
  const stepper = mountStepper(panel, app, { open: (run) => app.open("write", { run: run.id }) });
  const begin = () => asking.text.value !== "" && stepper.begin({ prompt: asking.text.value, params: asking.params() });
  menu.append(element("button", { type: "button", class: "chip", text: "Choose one token at a time", on: { click: begin } }));
  mountCursorMenu(menu, asking.text, app, { write: asking.start });
  place.closest(".view").addEventListener("step", ({ detail }) => stepper.goOn(detail.run, detail.stream, detail.count));
  return {
    show(run) {
      if (stepper.run !== run) stepper.close();
    },
    setMode(mode) {
      menu.hidden = mode === "chat";
    },
  };
}
