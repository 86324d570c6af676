// Chooses how tokens are coloured and if pointing at one explains it, and says what the colours mean.

import { element } from "../core/dom.js";
import { LEVELS } from "./token_text.js";

const MODES = [
  { name: "surprise", title: "surprise (probability)" },
  { name: "relative", title: "probability ÷ best" },
  { name: "none", title: "off" },
];

const MARKS = [
  { name: "drafted", title: "draft taken" },
  { name: "missed", title: "draft not taken" },
  { name: "forced", title: "forced by a grammar" },
];

/** Mounts the switches and the legend. The settings "colour" and "hover" hold the choices. */
export function mountLegend(place, settings) {
  const select = element("select", { id: "colour", on: { change: () => settings.set("colour", select.value) } });
  select.append(...MODES.map(({ name, title }) => new Option(title, name)));
  const swatches = element("span", { class: "swatches" }, ...swatchesOf());
  const marks = element("span", { class: "marks", text: "underlined: " });
  MARKS.forEach(({ name, title }, i) => marks.append(i > 0 ? ", " : "", element("span", { class: name, text: title })));
  const hover = element("input", { type: "checkbox", on: { change: () => settings.set("hover", hover.checked) } });
  place.append(
    element("label", { class: "option pointing small" }, hover, "Explain tokens under the pointer"),
    element("div", { class: "legend small" }, element("label", { for: "colour", text: "Colour" }), select, swatches, marks),
  );
  const show = () => {
    const { name } = MODES.find((mode) => mode.name === settings.get("colour")) ?? MODES[0];
    select.value = name;
    swatches.hidden = name === "none";
    hover.checked = settings.get("hover");
  };
  settings.addEventListener("change", show);
  show();
}

function swatchesOf() {
  const bounds = LEVELS.map((bound) => `${Number((bound * 100).toPrecision(2))} %`);
  return [...bounds.map((text) => `> ${text}`), "less"].map((text, level) =>
    element("span", { class: `swatch s${level}`, text }),
  );
}
