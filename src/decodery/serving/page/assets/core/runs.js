// Starts runs and keeps them.

import { ServerError } from "./api.js";
import { newId, Run, RunReader } from "./run.js";

const CANDIDATES = 10;

/** Dispatches "change" when runs come, end or go. */
export class Runs extends EventTarget {
  loaded = Promise.resolve();
  #api;
  #store;
  #runs = new Map();
  /** Run id -> the controller of its request. */
  #active = new Map();

  constructor(api, store) {
    super();
    this.#api = api;
    this.#store = store;
  }

  /** Takes the runs that the store has kept. `loaded` is fulfilled then, also if they cannot be read. */
  load() {
    const loading = this.#load();
    this.loaded = loading.catch(() => {});
    return loading;
  }

  async #load() {
    const kept = await this.#store.load();
    // They are older than those of this page.
    this.#runs = new Map([...kept.map((run) => [run.id, run]), ...this.#runs]);
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Starts requests, each by a `POST /trace` of its own, and returns their runs at once. The server runs those of a
   * model in one batch, and each can be stopped alone.
   *
   * A request without a seed gets one, so that what is shown can be made again.
   * @param {{model?: string, requests: {prompt: string | number[], params?: object, title?: string,
   *   generated?: number, stream?: number | null, given?: Position[], pieces?: Map, messages?: object[]}[],
   *   candidates?: number, parent?: object | null, view?: string}} asked
   *   the last `generated` ids of a prompt are the `given` positions: text that the run goes on from;
   *   `messages` are those that a run replies to; `view` names the view that begins the runs
   */
  start({ model, requests, candidates = CANDIDATES, parent = null, view }) {
    const seeded = requests.map(({ params, ...rest }) => ({ ...rest, params: { ...params, seed: params?.seed ?? newSeed() } }));
    const runs = seeded.map(({ prompt, params, title, generated = 0, stream: drawn = null, given, pieces, messages }) => {
      const text = typeof prompt === "string" ? prompt : null;
      const promptTokenIds = text === null ? prompt.slice(0, prompt.length - generated) : [];
      const { seed } = params;
      return new Run({ title, model, parent, view, prompt: text, promptTokenIds, params, seed, drawn, given, pieces, messages });
    });
    runs.forEach((run, place) => {
      const controller = new AbortController();
      this.#active.set(run.id, controller);
      this.#runs.set(run.id, run);
      const body = { model, candidates, texts: true, progress: true, requests: [asOnTheWire(seeded[place])] };
      this.#follow(run, body, controller.signal);
    });
    this.dispatchEvent(new Event("change"));
    return runs;
  }

  async #follow(run, body, signal) {
    const reader = new RunReader([run]);
    try {
      for await (const line of this.#api.lines("/trace", body, signal)) {
        reader.feed(line);
        this.#keep(run);
      }
      if (!reader.ended) reader.cut("The server ended the answer early.");
    } catch (error) {
      if (signal.aborted) reader.cut();
      else if (error instanceof ServerError || run.streams.length === 0) {
        run.param = error.param ?? null;
        reader.fail(error.message);
      } else reader.cut(error.message);
    }
    this.#active.delete(run.id);
    this.#keep(run);
    this.dispatchEvent(new Event("change"));
  }

  /** Stops a run: the server drops its request. */
  stop(run) {
    this.#active.get(run.id)?.abort();
  }

  isActive(run) {
    return this.#active.has(run.id);
  }

  add(run) {
    this.#runs.set(run.id, run);
    this.#keep(run);
    this.dispatchEvent(new Event("change"));
  }

  /** Adds a run of a file, and returns it. One that is here already becomes another one. */
  imported(run) {
    if (this.#runs.has(run.id)) run.id = newId();
    if (run.parent !== null && !this.#runs.has(run.parent.run)) run.parent = null;
    this.add(run);
    return run;
  }

  remove(run) {
    this.stop(run);
    this.#runs.delete(run.id);
    this.#store.remove(run.id).catch(() => {});
    this.dispatchEvent(new Event("change"));
  }

  get(id) {
    return this.#runs.get(id);
  }

  list() {
    return [...this.#runs.values()];
  }

  #keep(run) {
    if (this.#runs.has(run.id)) this.#store.save(run).catch(() => {});
  }
}

function asOnTheWire({ prompt, suffix, params, generated, stream }) {
  return { prompt, params, ...(suffix ? { suffix } : {}), ...(generated ? { generated, stream } : {}) };
}

/** Returns a seed that JavaScript's numbers hold exactly. */
export function newSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}
