// Shows short notices, which go away by themselves or when they are closed.

import { element } from "./dom.js";

const SHOWN_MS = 6000;

/** Returns `notify(text, kind)`; `kind` is "info" or "error". Errors stay until they are closed. */
export function notices(place) {
  return (text, kind = "info") => {
    for (const other of [...place.children]) if (other.dataset.text === text) other.remove();
    const notice = element("div", { class: `notice ${kind}`, "data-text": text }, element("span", { text }));
    const close = () => notice.remove();
    notice.append(element("button", { type: "button", class: "plain", "aria-label": "Close notice", text: "✕", on: { click: close } }));
    place.append(notice);
    if (kind !== "error") setTimeout(close, SHOWN_MS);
    return close;
  };
}
