// Shows the tokens of one tokenizer, and what the one under the pointer consists of.

import { element } from "../core/dom.js";
import { Position, Run } from "../core/run.js";
import { hexadecimal, label } from "../core/spelling.js";
import { tokensWithin } from "../core/tokenizing.js";
import { renderTokens } from "./token_text.js";

// A page of tokens, so that a text of any length has few elements.
const PAGE = 1000;

/**
 * Returns a column: its `element`; `show(ask)` shows the tokens that `ask(signal)` returns, unless it or `wait` is called
 * before; `wait()` says that others will be asked for; `link(span)` marks the tokens that have bytes of a span; `redraw()`; and `close()`.
 * @param {string} name the model's
 * @param {{showsIds: () => boolean, pointed: (column: object, span: [number, number], kind: string) => void}} options
 */
export function tokenizerColumn(name, { showsIds, pointed }) {
  const counted = element("span", { class: "number" });
  const pages = element("div", { class: "row pages", hidden: true });
  const tokens = element("div", { class: "pieces", role: "group", "aria-label": `Tokens of ${name}` });
  const details = element("dl", { class: "details number small" });
  const wrong = element("p", { class: "wrong", role: "alert", hidden: true });
  const place = element(
    "section",
    { class: "sheet", "aria-label": name },
    element("h3", {}, element("span", { class: "name", text: name }), " ", counted),
    wrong,
    pages,
    tokens,
    details,
  );
  const column = { element: place, show, wait, link, redraw, close };
  let found = { ids: [], spans: [], pieces: new Map() };
  let first = 0;
  let controller = new AbortController();
  let rendered = null;
  /** The first and the last token that share bytes with one of another column. */
  let linked = null;

  /** Drops the answer that is awaited. */
  function wait() {
    controller.abort();
    place.dataset.state = "waiting";
  }

  async function show(ask) {
    wait();
    controller = new AbortController();
    const { signal } = controller;
    let error = null;
    try {
      const answer = await ask(signal);
      if (signal.aborted) return;
      found = answer;
    } catch (thrown) {
      if (signal.aborted) return;
      error = thrown;
    }
    wrong.hidden = error === null;
    wrong.textContent = error?.message ?? "";
    if (first >= found.ids.length) first = 0;
    place.dataset.state = error === null ? "drawing" : "failed";
    redraw();
  }

  function redraw() {
    const { ids, pieces } = found;
    rendered?.close();
    if (place.dataset.state === "done") place.dataset.state = "drawing";
    const run = new Run();
    run.pieces = pieces;
    const stream = run.stream(0);
    stream.positions = ids.slice(first, first + PAGE).map((id) => new Position(id));
    rendered = renderTokens(tokens, run, stream, { colour: "none" });
    tokens.classList.toggle("ids", showsIds());
    linked = null;
    // After the listener of the tokens, which adds some in each frame.
    run.addEventListener("change", drawn);
    drawn();
    counted.textContent = countOf(found);
    details.replaceChildren();
    showPages();
  }

  function showPages() {
    const count = found.ids.length;
    pages.hidden = count <= PAGE;
    const last = Math.min(first + PAGE, count);
    const turn = (text, to) => {
      const button = element("button", { type: "button", text, on: { click: () => turned(to) } });
      button.disabled = to <= -PAGE || to >= count;
      return button;
    };
    const told = `Tokens ${(first + 1).toLocaleString("en")} to ${last.toLocaleString("en")}`;
    pages.replaceChildren(turn("Earlier", first - PAGE), turn("Later", first + PAGE), element("span", { class: "number small dim", text: told }));
  }

  function turned(to) {
    first = Math.max(to, 0);
    // A page begins with a whole character.
    while (first > 0 && continues(found.pieces.get(found.ids[first]).bytes)) first -= 1;
    redraw();
  }

  function at({ detail: { index, kind } }) {
    const place = first + index;
    showDetails(place);
    link(null);
    pointed(column, found.spans[place], kind);
  }

  function showDetails(place) {
    const id = found.ids[place];
    const { bytes, special } = found.pieces.get(id);
    const [start, end] = found.spans[place];
    const rows = [
      ["Token", `${(place + 1).toLocaleString("en")} of ${found.ids.length.toLocaleString("en")}`],
      ["Piece", label(id, found.pieces)],
      ["Id", `${id}${special ? ", special" : ""}`],
      ["Bytes", bytes.length === 0 ? "none" : hexadecimal(bytes.slice(0, 64)) + (bytes.length > 64 ? " …" : "")],
      ["Span", start === end ? `none, at byte ${start}` : end - start === 1 ? `byte ${start}` : `bytes ${start} to ${end - 1}`],
    ];
    details.replaceChildren(...rows.flatMap(([term, text]) => [element("dt", { text: term }), element("dd", { text })]));
  }

  function link(span) {
    for (const one of tokens.querySelectorAll(".linked")) one.classList.remove("linked");
    linked = span === null ? null : tokensWithin(found.spans, span);
    paint();
  }

  /** Adds to the tokens that are there what is not theirs: ids, and the marks of linked ones. */
  function paint() {
    const { children } = tokens;
    if (showsIds()) for (let i = 0; i < children.length; i += 1) children[i].dataset.id = found.ids[first + i];
    if (linked === null) return;
    for (let i = Math.max(linked[0] - first, 0); i <= Math.min(linked[1] - first, children.length - 1); i += 1) {
      children[i].classList.add("linked");
    }
  }

  /** Says when all tokens are there: those of a long text come in several frames. */
  function drawn() {
    paint();
    const count = Math.min(found.ids.length - first, PAGE);
    if (place.dataset.state === "drawing" && tokens.children.length === count) place.dataset.state = "done";
  }

  function close() {
    controller.abort();
    rendered?.close();
    place.remove();
  }

  tokens.addEventListener("position", at);
  return column;
}

/** True if bytes begin inside a character. */
function continues(bytes) {
  return bytes.length > 0 && bytes[0] >= 0x80 && bytes[0] < 0xc0;
}

function countOf({ ids, spans }) {
  const bytes = spans.reduce((most, [, end]) => Math.max(most, end), 0);
  const count = `${ids.length.toLocaleString("en")} token${ids.length === 1 ? "" : "s"}`;
  return ids.length === 0 ? count : `${count}, ${(bytes / ids.length).toFixed(1)} bytes each`;
}
