// Shows the form of one of two settings that are voted on: a model and its parameters.

import { element } from "../core/dom.js";
import { mountColumnParameters, summaryOf } from "./column_parameters.js";

const SHARED = ["max_tokens", "seed", "n", "best_of"];

export class VoteSetting {
  #parameters;
  #model;
  #modelField;
  #wrong = element("p", { class: "wrong small", role: "alert", hidden: true });

  /**
   * @param {string} key begins the ids of the fields
   * @param {string} title
   * @param {object} described `assets/parameters.json`
   * @param {object} params those that it has at first
   */
  constructor(key, title, described, params) {
    this.#model = element("select", { id: `${key}-model` });
    this.#modelField = element("div", { class: "field", hidden: true }, element("label", { for: this.#model.id, class: "small dim", text: "Model" }), this.#model);
    const form = element("div", { class: "column-form" });
    this.#parameters = mountColumnParameters(form, key, described, SHARED);
    this.#parameters.set(params);
    const header = element("header", { class: "row" }, element("h3", { text: title }), this.#parameters.preset);
    this.element = element("section", { class: "setting", "aria-label": title }, header, this.#modelField, form, this.#wrong);
  }

  /** Offers the server's models; the chosen one stays where it is among them. */
  listModels({ list, current }) {
    const chosen = list.includes(this.#model.value) ? this.#model.value : (current ?? "");
    this.#model.replaceChildren(...list.map((name) => new Option(name, name)));
    this.#model.value = chosen;
    this.#modelField.hidden = list.length < 2;
  }

  /** Takes a setting of another view. */
  set({ model, params }) {
    this.#parameters.set(params);
    this.#model.value = model;
  }

  /**
   * Returns the setting with `shared` parameters, and the name that tells it apart: its parameters in the order of their
   * names.
   */
  value(shared) {
    const params = { ...this.#parameters.value(), ...shared };
    const sorted = Object.entries(params).sort(([one], [other]) => (one < other ? -1 : 1));
    return { name: summaryOf(Object.fromEntries(sorted)), model: this.#model.value, params };
  }

  /** Shows why its answer failed; null for nothing. */
  showError(message) {
    this.#wrong.textContent = message ?? "";
    this.#wrong.hidden = message === null;
  }
}
