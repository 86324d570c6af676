// Keeps the reader's settings of the page, in this browser. Never the key, and no texts.

const NAME = "decodery-settings";
const DEFAULTS = { sendWith: "enter", colour: "surprise", hover: true, theme: "auto", model: null };

/** Dispatches "change" with the name of the setting. */
export class Settings extends EventTarget {
  #values = { ...DEFAULTS };

  constructor() {
    super();
    try {
      Object.assign(this.#values, JSON.parse(localStorage.getItem(NAME) ?? "{}"));
    } catch {
      // Storage is forbidden, or what it holds is not JSON: the defaults hold.
    }
  }

  get(name) {
    return this.#values[name];
  }

  set(name, value) {
    if (this.#values[name] === value) return;
    this.#values[name] = value;
    try {
      localStorage.setItem(NAME, JSON.stringify(this.#values));
    } catch {
      // The setting holds until the page is closed.
    }
    this.dispatchEvent(new CustomEvent("change", { detail: name }));
  }
}
