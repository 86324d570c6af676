// The field in which one writes a prompt or a message, with its buttons.

import { element } from "../core/dom.js";

/**
 * Mounts the field. `send` is called with its text, and `stop` when the reader ends what runs.
 * @returns {{text: HTMLTextAreaElement, setMode(mode: "completion" | "chat"): void, setRunning(running: boolean): void}}
 */
export function mountComposer(place, settings, { send, stop }) {
  const text = element("textarea", { id: "prompt", rows: 3, "aria-describedby": "composer-hint", spellcheck: "false" });
  const label = element("label", { for: "prompt", class: "unseen", text: "Prompt" });
  const sending = element("button", { type: "submit", class: "primary", text: "Write" });
  const stopping = element("button", { type: "button", text: "Stop", hidden: true, on: { click: stop } });
  const hint = element("p", { id: "composer-hint", class: "help" });
  const keys = element("select", { id: "send-with", on: { change: () => settings.set("sendWith", keys.value) } });
  keys.append(new Option("Enter", "enter"), new Option("Ctrl+Enter", "control"));
  const form = element("form", { class: "composer" }, label, text, element("div", { class: "buttons" }, sending, stopping));
  place.append(form, element("div", { class: "below" }, hint, element("label", { for: "send-with", class: "help", text: "Send with" }), keys));

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(text.value);
  });
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing || event.shiftKey) return;
    const control = event.ctrlKey || event.metaKey;
    if (settings.get("sendWith") === "control" ? !control : event.altKey) return;
    event.preventDefault();
    send(text.value);
  });

  function showKeys() {
    const withControl = settings.get("sendWith") === "control";
    keys.value = withControl ? "control" : "enter";
    hint.textContent = `${withControl ? "Ctrl+Enter sends" : "Enter sends, Shift+Enter starts a new line"}. Esc stops.`;
  }
  settings.addEventListener("change", showKeys);
  showKeys();

  return {
    text,
    setMode(mode) {
      label.textContent = mode === "chat" ? "Message" : "Prompt";
      text.placeholder = mode === "chat" ? "Message" : "The beginning of a text";
      sending.textContent = mode === "chat" ? "Send" : "Write";
    },
    setRunning(running) {
      stopping.hidden = !running;
      sending.hidden = running;
    },
  };
}
