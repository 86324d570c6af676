// The view in which one sees how tokenizers divide a text.

import { element } from "../core/dom.js";
import { idsOf, piecesOf, tokenize, tokenizeMessages } from "../core/tokenizing.js";
import { byteLength, codePoints, indicesOfBytes, sliceOfSpan, wellFormed } from "../core/utf8.js";
import { tokenizerColumn } from "../parts/tokenizer_column.js";

const EXAMPLE = "Tokens aren't words: naïve 👩‍👩‍👧 🇩🇪, 12345 and   spaces.\n\tA second line.";
const WAIT_MS = 150;
const READS = {
  text: { label: "Text", hint: "Each piece stands for the bytes that it has in the text." },
  message: { label: "Chat message", hint: "The text as a user's message in the model's chat template." },
  ids: { label: "Token ids", hint: "Whole numbers, such as 504 3575. A part of a character shows its bytes." },
};

export const view = { name: "tokens", title: "Tokens", mount };

function mount(place, app) {
  const columns = new Map();
  let text = "";
  let indices = new Uint32Array(1);
  let timer = null;
  let followed = null;

  const field = element("textarea", { id: "tokens-text", rows: 5, spellcheck: "false", value: EXAMPLE, "aria-describedby": "tokens-hint" });
  const hint = element("p", { id: "tokens-hint", class: "dim small" });
  const counts = element("p", { class: "number small", role: "status", id: "tokens-counts" });
  const models = element("fieldset", { class: "choices", hidden: true }, element("legend", { text: "Tokenizers" }));
  const special = element("input", { type: "checkbox", checked: true });
  const ids = element("input", { type: "checkbox" });
  const reads = element("fieldset", { class: "choices" }, element("legend", { text: "Read as" }), ...Object.entries(READS).map(readChoice));
  const shown = element("div", { class: "columns" });
  place.append(
    element("h2", { class: "unseen", text: "Tokens" }),
    element("label", { for: "tokens-text", class: "unseen", text: "Text to divide" }),
    field,
    element("div", { class: "row" }, reads, models, choice(special, "Add special tokens at the ends"), choice(ids, "Show ids")),
    element("div", { class: "row" }, counts, hint),
    shown,
  );

  function readChoice([value, { label }]) {
    const input = element("input", { type: "radio", name: "tokens-read", value });
    input.checked = value === "text";
    return choice(input, label);
  }

  function reading() {
    return reads.querySelector(":checked").value;
  }

  /** Asks for the tokens once nobody has typed for a moment. Until then the columns drop answers to earlier texts. */
  function changed() {
    for (const column of columns.values()) column.wait();
    hint.textContent = READS[reading()].hint;
    special.disabled = reading() !== "text";
    clearTimeout(timer);
    timer = setTimeout(() => columns.forEach(ask), WAIT_MS);
  }

  function ask(column, model) {
    text = wellFormed(field.value);
    indices = reading() === "text" ? indicesOfBytes(text) : null;
    showCounts();
    column.show(async (signal) => {
      if (reading() === "ids") return await piecesOf(app.api, model, idsOf(text), { signal });
      const messages = [{ role: "user", content: text }];
      if (reading() === "message") return await tokenizeMessages(app.api, model, messages, { signal });
      return await tokenize(app.api, model, text, { special: special.checked, signal });
    });
  }

  function showCounts() {
    const count = (number, name) => `${number.toLocaleString("en")} ${name}${number === 1 ? "" : "s"}`;
    counts.textContent = `${count(codePoints(text), "character")} · ${count(byteLength(text), "byte")}`;
  }

  /** Lists the models. One column alone is that of the page's model, also when another one is chosen. */
  function listModels() {
    const names = app.models.list;
    const { current } = app.models;
    const chosen = new Set([...columns.keys()].filter((name) => names.includes(name)));
    if (chosen.size === 1 && chosen.has(followed)) chosen.clear();
    if (chosen.size === 0 && current !== null) chosen.add(current);
    followed = current;
    models.hidden = names.length < 2;
    models.replaceChildren(models.firstChild, ...names.map((name) => modelChoice(name, chosen.has(name))));
    for (const name of columns.keys()) if (!chosen.has(name)) remove(name);
    for (const name of chosen) add(name);
  }

  function modelChoice(name, checked) {
    const input = element("input", { type: "checkbox", value: name, checked });
    input.addEventListener("change", () => (input.checked ? add(name) : remove(name)));
    return choice(input, name);
  }

  function add(name) {
    if (columns.has(name)) return;
    const column = tokenizerColumn(name, { showsIds: () => ids.checked, pointed });
    columns.set(name, column);
    shown.append(column.element);
    ask(column, name);
  }

  function remove(name) {
    columns.get(name)?.close();
    columns.delete(name);
  }

  /** Marks what other tokenizers make of the bytes of a token, and selects them in the field after a click. */
  function pointed(column, span, kind) {
    for (const other of columns.values()) if (other !== column) other.link(span);
    if (kind === "click" && indices !== null && text === field.value) field.setSelectionRange(...sliceOfSpan(span, indices));
  }

  function caretMoved() {
    if (document.activeElement !== field || indices === null || text !== field.value) return;
    const before = byteLength(text.slice(0, field.selectionStart));
    const end = Math.max(before + 1, byteLength(text.slice(0, field.selectionEnd)));
    for (const column of columns.values()) column.link([before, end]);
  }

  field.addEventListener("input", changed);
  reads.addEventListener("change", changed);
  special.addEventListener("change", changed);
  ids.addEventListener("change", () => columns.forEach((column) => column.redraw()));
  app.models.addEventListener("change", listModels);
  return {
    show({ text: given, read } = {}) {
      if (given !== undefined) field.value = given;
      if (read in READS) reads.querySelector(`[value="${read}"]`).checked = true;
      document.addEventListener("selectionchange", caretMoved);
      listModels();
      changed();
    },
    hide() {
      document.removeEventListener("selectionchange", caretMoved);
    },
  };
}

function choice(input, label) {
  return element("label", { class: "choice" }, input, label);
}
