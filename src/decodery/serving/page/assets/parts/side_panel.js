// The panel beside the text: tabs of which one is open. On a narrow screen it is a sheet over the text.

import { element } from "../core/dom.js";

/**
 * @param {HTMLElement} place
 * @param {{name: string, title: string}[]} tabs
 * @returns {{panels: Object<string, HTMLElement>, open(name: string): void, show(): void, close(): void}} `open`
 *   chooses a tab, and `show` also brings the sheet up
 */
export function mountSidePanel(place, tabs) {
  const list = element("div", { class: "tabs", role: "tablist", "aria-label": "Details" });
  const close = element("button", { type: "button", class: "plain close", "aria-label": "Close details", text: "✕" });
  const panels = {};
  const buttons = {};
  place.append(element("div", { class: "tab-bar" }, list, close));
  for (const { name, title } of tabs) {
    buttons[name] = element("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`, class: "plain", text: title, on: { click: () => open(name) } });
    panels[name] = element("div", { class: "panel", role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}`, tabindex: 0 });
    list.append(buttons[name]);
    place.append(panels[name]);
  }

  function open(name) {
    for (const { name: one } of tabs) {
      panels[one].hidden = one !== name;
      buttons[one].setAttribute("aria-selected", String(one === name));
      buttons[one].tabIndex = one === name ? 0 : -1;
    }
  }

  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    const names = tabs.map(({ name }) => name);
    const next = names[(names.indexOf(event.target.id.replace("tab-", "")) + step + names.length) % names.length];
    open(next);
    buttons[next].focus();
  });
  close.addEventListener("click", () => place.classList.remove("open"));
  open(tabs[0].name);
  return { panels, open, show: (name) => (open(name), place.classList.add("open")), close: () => place.classList.remove("open") };
}
