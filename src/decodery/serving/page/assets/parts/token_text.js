// Shows the tokens of a stream, coloured by how surprising each was.

import { element } from "../core/dom.js";
import { Speller } from "../core/spelling.js";

// Upper bounds of the levels 1 to 7. Two levels are about a factor of ten.
export const LEVELS = [0.9, 0.6, 0.35, 0.18, 0.08, 0.025, 0.005];

// So many tokens are added in a frame, which takes about 5 ms.
const A_FRAME = 150;

/** Returns the level of a share from 0 (expected) to 7. */
export function levelOf(share) {
  return LEVELS.filter((bound) => share < bound).length;
}

/** Returns a choice's probability relative to that of the model's best candidate. */
export function relative(choice) {
  const best = Math.max(...choice.candidates.map(({ before }) => before));
  return best > 0 ? choice.before / best : 1;
}

/**
 * Shows a stream's tokens in `container`, and adds those that come later.
 *
 * Dispatches "position" from the token's element on hover, focus and click, with {run, stream, index, kind}.
 * @param {{colour?: "surprise" | "relative" | "none"}} [options]
 * @returns {{setColour(colour: string): void, open(index: number): void, mark(index: number): void, close(): void}}
 *   `open` focuses a token, `mark` only outlines it, and `close` ends the updates
 */
export function renderTokens(container, run, stream, { colour = "surprise" } = {}) {
  const speller = new Speller(run.pieces);
  let shown = 0;
  let current = null;
  container.classList.add("tokens");
  container.dataset.colour = colour;
  container.replaceChildren();

  /** Adds what is missing: up to so many tokens now, the others in the next frames. */
  function update(most = A_FRAME) {
    const { positions } = stream;
    const end = Math.min(positions.length, shown + most);
    if (shown === end) return;
    const added = document.createDocumentFragment();
    for (; shown < end; shown += 1) added.append(tokenElement(positions[shown], shown, speller));
    container.append(added);
    if (current === null && container.firstElementChild !== null) container.firstElementChild.tabIndex = 0;
    if (shown < positions.length) run.changed();
  }

  function at(index) {
    if (index >= shown) update(Infinity);
    return container.children[index];
  }

  function mark(found) {
    (current ?? container.firstElementChild)?.setAttribute("tabindex", "-1");
    current?.classList.remove("open");
    current = found;
    found.tabIndex = 0;
    found.classList.add("open");
  }

  function tell(kind, { target }) {
    const found = target.closest(".token");
    if (found === null || !container.contains(found)) return;
    if (kind !== "hover") mark(found);
    const detail = { run, stream, index: Number(found.dataset.i), kind };
    found.dispatchEvent(new CustomEvent("position", { bubbles: true, detail }));
  }

  function move(event) {
    const from = event.target.closest(".token");
    const to = from !== null && !event.ctrlKey && !event.altKey && !event.metaKey ? targetOf(event.key, from, container) : undefined;
    if (to === undefined) return;
    event.preventDefault();
    to?.focus();
  }

  const listeners = {
    pointerover: (event) => tell("hover", event),
    focusin: (event) => tell("focus", event),
    click: (event) => tell("click", event),
    keydown: move,
  };
  for (const [type, listener] of Object.entries(listeners)) container.addEventListener(type, listener);
  const changed = () => update();
  run.addEventListener("change", changed);
  update();
  return {
    setColour(value) {
      container.dataset.colour = value;
    },
    open: (index) => at(index)?.focus(),
    mark(index) {
      if (at(index) !== undefined) mark(at(index));
    },
    close() {
      run.removeEventListener("change", changed);
      for (const [type, listener] of Object.entries(listeners)) container.removeEventListener(type, listener);
    },
  };
}

/** Returns the token to which a key leads; null where there is none, undefined for other keys. */
function targetOf(key, from, container) {
  if (key === "ArrowRight") return from.nextElementSibling;
  if (key === "ArrowLeft") return from.previousElementSibling;
  if (key === "Home") return container.firstElementChild;
  if (key === "End") return container.lastElementChild;
  if (key === "ArrowDown") return inNextLine(from, (token) => token.nextElementSibling, 1);
  if (key === "ArrowUp") return inNextLine(from, (token) => token.previousElementSibling, -1);
  return undefined;
}

/** Returns the token of the next line in a direction that is nearest below or above this one. */
function inNextLine(from, step, sign) {
  const start = from.getClientRects()[0];
  if (start === undefined) return step(from);
  let best = null;
  let distance = Infinity;
  let line = null;
  for (let token = step(from); token !== null; token = step(token)) {
    const rect = token.getClientRects()[0];
    if (rect === undefined || (rect.top - start.top) * sign < start.height / 2) continue;
    line ??= rect.top;
    if (Math.abs(rect.top - line) > start.height / 2) break;
    const away = Math.abs(rect.left - start.left);
    if (away < distance) [best, distance] = [token, away];
  }
  return best;
}

/** Returns the element of one token: one span, with further elements only where a mark stands inside its text. */
export function tokenElement(position, index, speller) {
  const spelled = speller.push(position.token);
  const made = element("span", { class: classesOf(position, spelled), "data-i": index, tabindex: -1 });
  if (spelled.bytes !== null) made.dataset.bytes = spelled.bytes;
  const [first] = spelled.segments;
  if (spelled.segments.length === 1 && !/\n/.test(spelled.text)) {
    made.textContent = spelled.text;
    if (first.mark !== null) made.dataset.mark = first.mark;
    return made;
  }
  if (/^\n+$/.test(spelled.text)) {
    made.textContent = spelled.text;
    made.dataset.mark = spelled.segments.map(({ mark }) => mark).join("");
    return made;
  }
  for (const { text, mark } of spelled.segments) {
    if (mark !== null) made.append(element("i", { class: "mark", "data-mark": mark }));
    made.append(text);
  }
  return made;
}

function classesOf({ choice, accepted, drafted, picked }, { special, isolated }) {
  const classes = ["token"];
  if (choice !== null) {
    classes.push(`s${levelOf(choice.before)}`);
    if (choice.candidates?.length > 0) classes.push(`r${levelOf(relative(choice))}`);
    if (choice.forced) classes.push("forced");
  }
  if (accepted) classes.push("drafted");
  else if (drafted !== null && drafted !== undefined) classes.push("missed");
  if (picked) classes.push("picked");
  if (special) classes.push("special");
  if (isolated) classes.push("isolated");
  return classes.join(" ");
}
