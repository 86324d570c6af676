// Shows two texts beside each other: what they share once, and where they part.

import { nameOf, partingPoint, textBetween } from "../core/branches.js";
import { element } from "../core/dom.js";
import { percent } from "../core/figures.js";
import { label, Speller } from "../core/spelling.js";
import { tokenElement } from "./token_text.js";

const SHARED = 160;

/** Returns the element that compares two texts, each {run, stream}. */
export function compareStreams([first, second]) {
  const place = partingPoint(first.stream, second.stream);
  const whole = [first, second].every(({ stream }) => stream.positions.length === place);
  const shared = textBetween(first.run, first.stream, 0, place);
  const tail = Array.from(shared).slice(-SHARED).join("");
  return element(
    "section",
    { class: "sheet", "aria-label": "Comparison" },
    element("h3", { text: whole ? "The two texts are the same" : `They part at token ${place + 1}` }),
    element("p", { class: "shared" }, element("span", { class: "dim small", text: "both: " }), element("bdi", { text: tail === shared ? tail : `… ${tail}` })),
    element("div", { class: "sides" }, side(first, second, place), side(second, first, place)),
  );
}

function side({ run, stream }, other, place) {
  const speller = new Speller(run.pieces);
  const spans = stream.positions.map((position, i) => tokenElement(position, i, speller)).slice(place);
  // What is compared is looked at, not opened.
  for (const span of spans) span.removeAttribute("tabindex");
  return element(
    "div",
    { class: "side", role: "group", "aria-label": nameOf(run, stream.index) },
    element("h4", { text: nameOf(run, stream.index) }),
    element("p", { class: "dim small number", text: odds(run, stream, other, place) }),
    element("div", { class: "tokens", "data-colour": "surprise" }, ...spans),
  );
}

/** Returns how likely both ways on were where the texts part, by this run's own numbers. */
function odds(run, stream, other, place) {
  const position = stream.positions[place];
  if (position === undefined) return "ends here";
  const rival = other.stream.positions[place];
  const own = `${label(position.token, run.pieces)} ${position.choice === null ? "" : percent(position.choice.before)}`;
  const candidate = position.choice?.candidates.find(({ token }) => token === rival?.token);
  if (candidate === undefined) return own;
  return `${own}, against ${label(rival.token, other.run.pieces)} ${percent(candidate.before)}`;
}
