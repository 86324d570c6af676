// Keeps runs while the page is open.

export class Store {
  #kept = new Map();

  /** Returns all runs that are kept. */
  async load() {
    return [...this.#kept.values()];
  }

  async save(run) {
    this.#kept.set(run.id, run);
  }

  async remove(id) {
    this.#kept.delete(id);
  }

  async clear() {
    this.#kept.clear();
  }
}
