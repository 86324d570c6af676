// Shows the view that the address names: `#write`, or `#learn/greedy` with the path "greedy".

import { element } from "./dom.js";
import { VIEWS } from "./views.js";

export class Router {
  #app;
  #main;
  #links = new Map();
  #mounted = new Map();
  #shown = null;
  #args = null;
  #turn = 0;

  constructor(app, main, navigation) {
    this.#app = app;
    this.#main = main;
    for (const { name, title } of VIEWS) {
      const link = element("a", { href: `#${name}`, text: title });
      this.#links.set(name, link);
      navigation.append(link);
    }
    addEventListener("hashchange", () => this.#follow());
  }

  start() {
    return this.#follow();
  }

  /** Goes to a view. `args.path` becomes part of the address; the others are handed to the view's `show`. */
  async open(name, args = {}) {
    const hash = `#${name}${args.path ? `/${args.path}` : ""}`;
    this.#args = args;
    if (location.hash === hash) await this.#follow();
    else location.hash = hash;
  }

  async #follow() {
    const [, name, path] = /^#([^/]*)\/?(.*)$/.exec(location.hash) ?? [null, "", ""];
    const view = VIEWS.find((one) => one.name === name) ?? VIEWS[0];
    const args = { path, ...this.#args };
    this.#args = null;
    const turn = (this.#turn += 1);
    let mounted;
    try {
      mounted = await this.#view(view);
    } catch (error) {
      // So that browsers that ask for a failed module again do.
      this.#forget(view.name);
      this.#app.notify(`The view “${view.title}” could not be loaded. (${error.message})`, "error");
      return;
    }
    // Another view was asked for in the meantime.
    if (turn !== this.#turn) return;
    if (this.#shown !== mounted) {
      if (this.#shown !== null) {
        this.#shown.element.hidden = true;
        this.#shown.hide?.();
      }
      mounted.element.hidden = false;
      this.#shown = mounted;
    }
    for (const [one, link] of this.#links) {
      if (one === view.name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = view.name === VIEWS[0].name ? "Decodery" : `${view.title} – Decodery`;
    mounted.show?.(args);
  }

  #forget(name) {
    this.#mounted.delete(name);
    document.getElementById(`view-${name}`)?.remove();
  }

  /** Returns a view, which is mounted once. */
  #view({ name, title, load }) {
    if (!this.#mounted.has(name)) {
      const place = element("section", { class: "view", id: `view-${name}`, "aria-label": title, hidden: true });
      this.#main.append(place);
      this.#mounted.set(name, load().then(({ view }) => ({ element: place, ...view.mount(place, this.#app) })));
    }
    return this.#mounted.get(name);
  }
}
