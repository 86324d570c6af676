// Draws the surprise of each token of several texts as lines over each other.

import { element } from "../core/dom.js";
import { decimal } from "../core/figures.js";
import { label } from "../core/spelling.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 300;
const EDGE = { left: 46, right: 12, top: 26, bottom: 38 };
const NARROW = 640;
const LEAST_TOP = 8;

/**
 * Returns a chart, over which the pointer and the arrow keys move a mark that tells the values.
 * @param {{name: string, kind: string, tokens: {token: number, bits: ?number}[], pieces: Map}[]} series  `kind` is
 *   a class; the lines begin at the same place.
 * @param {number} shared  How many tokens at the beginning are the same.
 */
export function surpriseChart(series, shared) {
  const width = innerWidth < NARROW ? 460 : 1000;
  const length = Math.max(1, ...series.map(({ tokens }) => tokens.length));
  const finite = series.flatMap(({ tokens }) => tokens.map(({ bits }) => bits)).filter(Number.isFinite);
  const top = Math.max(LEAST_TOP, Math.ceil(Math.max(0, ...finite) / 4) * 4);
  const inner = width - EDGE.left - EDGE.right;
  const x = (place) => EDGE.left + (inner * (place + 0.5)) / length;
  const y = (bits) => HEIGHT - EDGE.bottom - ((HEIGHT - EDGE.top - EDGE.bottom) * Math.min(bits, top)) / top;
  const mark = drawn("line", { class: "mark-line", y1: EDGE.top, y2: HEIGHT - EDGE.bottom, visibility: "hidden" });
  const picture = drawn(
    "svg",
    { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": summaryOf(series) },
    drawn("rect", { class: "shared", x: EDGE.left, y: EDGE.top, width: (inner * shared) / length, height: HEIGHT - EDGE.top - EDGE.bottom }),
    ...grid(top, length, width, x, y),
    ...series.map((one) => drawn("path", { class: `line ${one.kind}`, d: pathOf(one.tokens, x, y) })),
    mark,
  );
  const told = element("p", { class: "told small number", role: "status" });
  const chart = element("div", { class: "surprise-chart", tabindex: 0, role: "group", "aria-label": "Surprise of each token; the arrow keys go from token to token" }, picture);
  let place = -1;

  function point(next) {
    place = Math.max(0, Math.min(length - 1, next));
    mark.setAttribute("x1", x(place));
    mark.setAttribute("x2", x(place));
    mark.setAttribute("visibility", "visible");
    told.replaceChildren(...series.map((one) => readingOf(one, place)));
  }

  chart.addEventListener("pointermove", ({ clientX }) => {
    const box = picture.getBoundingClientRect();
    const at = ((clientX - box.left) / box.width) * width;
    point(Math.floor(((at - EDGE.left) / inner) * length));
  });
  chart.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -length, End: length }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    point(place + step);
  });
  return element("div", {}, chart, told);
}

function drawn(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function grid(top, length, width, x, y) {
  const found = [];
  for (let bits = 0; bits <= top; bits += top > 16 ? 8 : 4) {
    found.push(drawn("line", { class: "rule", x1: EDGE.left, x2: width - EDGE.right, y1: y(bits), y2: y(bits) }));
    found.push(drawn("text", { x: EDGE.left - 8, y: y(bits) + 4, "text-anchor": "end" }, String(bits)));
  }
  const step = Math.ceil(length / (width / 100) / 5) * 5;
  for (let place = step; place <= length; place += step) {
    found.push(drawn("text", { x: x(place - 1), y: HEIGHT - EDGE.bottom + 18, "text-anchor": "middle" }, String(place)));
  }
  found.push(drawn("text", { x: EDGE.left, y: HEIGHT - 4, "text-anchor": "start" }, "token"));
  found.push(drawn("text", { x: EDGE.left - 8, y: EDGE.top - 10, "text-anchor": "end" }, "bits"));
  return found;
}

/** Returns a line through the known values; an infinite one is at the top. */
function pathOf(tokens, x, y) {
  let path = "";
  let joined = false;
  tokens.forEach(({ bits }, place) => {
    if (bits !== null) path += `${joined ? "L" : "M"}${x(place).toFixed(1)} ${y(bits).toFixed(1)}`;
    joined = bits !== null;
  });
  return path;
}

function readingOf({ name, kind, tokens, pieces }, place) {
  const found = tokens[place];
  const value = found === undefined ? "has ended" : found.bits === null ? "not known" : `${decimal(found.bits)} bits`;
  return element(
    "span",
    { class: "reading" },
    element("span", { class: `swatch-line ${kind}` }),
    `${name}: `,
    found === undefined ? null : element("bdi", { class: "token-label", text: label(found.token, pieces) }),
    ` ${value}`,
  );
}

function summaryOf(series) {
  const parts = series.map(({ name, tokens }) => `${name}, ${tokens.length} tokens`);
  return `Lines of the surprise in bits of each token: ${parts.join("; ")}`;
}
