// Writes on from the cursor in a text field, or fills in at the cursor where the model can.

import { element } from "../core/dom.js";

/**
 * @param {HTMLElement} place
 * @param {HTMLTextAreaElement} field
 * @param {object} app
 * @param {{write(asked: {prompt: string, suffix?: string}): void}} to
 */
export function mountCursorMenu(place, field, app, { write }) {
  const on = element("button", { type: "button", class: "chip", text: "Write from the cursor", on: { click: writeOn } });
  const fill = element("button", { type: "button", class: "chip", text: "Fill in at the cursor", hidden: true, on: { click: fillIn } });
  place.append(on, fill);
  for (const type of ["input", "select", "keyup", "click"]) field.addEventListener(type, update);
  app.models.addEventListener("change", ask);
  update();
  ask();

  async function ask() {
    fill.hidden = true;
    if (app.models.current === null) return;
    const { can_infill: can } = await app.models.describe().catch(() => ({}));
    fill.hidden = !can;
  }

  function update() {
    on.disabled = field.selectionStart === 0 || field.selectionStart === field.value.length;
    fill.disabled = field.value === "";
  }

  function writeOn() {
    write({ prompt: field.value.slice(0, field.selectionStart) });
  }

  function fillIn() {
    write({ prompt: field.value.slice(0, field.selectionStart), suffix: field.value.slice(field.selectionEnd) });
  }
}
