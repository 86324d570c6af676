// Lists the runs that are kept. Those that run can be stopped here, also while another text is shown.

import { element } from "../core/dom.js";

/** Mounts the list; `chosen` is called with the run that the reader picks. */
export function mountRunList(place, app, chosen) {
  const list = element("ul", { class: "run-list" });
  place.append(list);

  function update() {
    const runs = app.runs.list().reverse();
    list.replaceChildren(...runs.map(item));
    if (runs.length === 0) list.append(element("li", { class: "help", text: "Nothing has been written yet." }));
  }

  function item(run) {
    const time = new Date(run.created).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const name = run.title || "Untitled";
    const open = element("button", { type: "button", class: "plain run-name", on: { click: () => chosen(run) } }, element("span", { text: name, dir: "auto" }), element("small", { class: "dim number", text: `${time} ${run.model}` }));
    const remove = element("button", { type: "button", class: "plain", "aria-label": `Remove ${name}`, text: "✕", on: { click: () => app.runs.remove(run) } });
    const stop = app.runs.isActive(run) ? element("button", { type: "button", "aria-label": `Stop ${name}`, text: "Stop", on: { click: () => app.runs.stop(run) } }) : null;
    return element("li", { class: "row" }, open, stop, remove);
  }

  app.runs.addEventListener("change", update);
  update();
}
