// Knows the models that the server offers, and which one is chosen.

/** Dispatches "change" when the list or the choice changes. */
export class Models extends EventTarget {
  #api;
  #settings;
  #list = [];
  #encoders = [];
  #described = new Map();

  constructor(api, settings) {
    super();
    this.#api = api;
    this.#settings = settings;
  }

  /** Asks for the list. Throws what the server answers, such as 503 while the first model is opened. */
  async load() {
    const { data } = await this.#api.json("/v1/models");
    const named = (chosen) => data.filter(chosen).map(({ id }) => id);
    this.#list = named(({ kind }) => kind !== "encoder");
    this.#encoders = named(({ kind }) => kind === "encoder");
    this.#described.clear();
    this.dispatchEvent(new Event("change"));
  }

  /** The names of the models that write texts. */
  get list() {
    return this.#list;
  }

  /** The names of the encoders, which write none. */
  get encoders() {
    return this.#encoders;
  }

  /** The name of the chosen model; null before the list is there. */
  get current() {
    const wanted = this.#settings.get("model");
    return this.#list.includes(wanted) ? wanted : (this.#list[0] ?? null);
  }

  choose(name) {
    this.#settings.set("model", name);
    this.dispatchEvent(new Event("change"));
  }

  /** Returns what `GET /trace` tells of a model. Throws where the server does not offer it. */
  async describe(name = this.current) {
    // Not asked for: the name may come from a file.
    if (this.#list.length > 0 && !this.#list.includes(name)) throw new Error("This server does not offer the run's model.");
    if (!this.#described.has(name)) {
      const asked = this.#api.json(`/trace?model=${encodeURIComponent(name)}`);
      this.#described.set(name, asked);
      asked.catch(() => this.#described.delete(name));
    }
    return await this.#described.get(name);
  }
}
