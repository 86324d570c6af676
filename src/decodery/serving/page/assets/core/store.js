// Keeps runs in the browser (IndexedDB), so that they are there after a reload and without a server.

import { fromJson, headOf } from "./run_json.js";

const NAME = "decodery";
const SAVE_MS = 500;
const LOST = "The browser does not let the page keep runs: they are gone when it is closed.";
const FULL = "The browser has no room for more runs: remove some, or save them as files.";

/**
 * Dispatches "trouble" with a sentence in `detail` where runs cannot be kept; each sentence once.
 *
 * A run is kept as its head and its lines. Each line is written once, while the run grows. A run whose `lines` are
 * replaced by another array is written anew, and one that has no lines any more is removed.
 */
export class Store extends EventTarget {
  #opening = null;
  #base = null;
  #told = new Set();
  /** Runs with news, and which lines of each run are written: the first `count` of an array. */
  #waiting = new Set();
  #written = new Map();
  #timer = null;

  constructor() {
    super();
    addEventListener("pagehide", () => this.#flush());
  }

  /** Returns all runs that are kept, the oldest first. Runs that had not ended are cut. */
  async load() {
    const base = await this.#open();
    if (base === null) return [];
    const heads = await result(base.transaction("runs").objectStore("runs").getAll());
    const runs = [];
    for (const { view, ...head } of heads.sort((one, other) => one.created - other.created)) {
      const lines = joined(await result(base.transaction("lines").objectStore("lines").getAll(linesOf(head.id))));
      try {
        const run = fromJson({ ...head, lines });
        run.view = view ?? run.view;
        runs.push(run);
        this.#written.set(head.id, { lines: run.lines, count: run.lines.length });
      } catch {
        this.#tell(`The run “${head.title}” was kept in a form that this page does not read.`);
      }
    }
    return runs;
  }

  /** Notes that a run has changed; it is written within half a second, or when the page is left. */
  async save(run) {
    this.#waiting.add(run);
    if (this.#timer !== null) return;
    // Opened now, so that nothing is awaited when the page is left.
    const opening = this.#open();
    this.#timer = setTimeout(() => opening.then(() => this.#flush()), SAVE_MS);
  }

  async remove(id) {
    for (const run of this.#waiting) if (run.id === id) this.#waiting.delete(run);
    this.#written.delete(id);
    await this.#write((runs, lines) => {
      runs.delete(id);
      lines.delete(linesOf(id));
    });
  }

  async clear() {
    this.#waiting.clear();
    this.#written.clear();
    await this.#write((runs, lines) => {
      runs.clear();
      lines.clear();
    });
  }

  /** Begins to write what has changed. Nothing is awaited before, since a page that is left runs no further. */
  #flush() {
    clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#base === null || this.#waiting.size === 0) return;
    const changed = [...this.#waiting].filter((run) => run.lines.length > 0 || this.#written.has(run.id));
    this.#waiting.clear();
    this.#write((runs, lines) => {
      for (const run of changed) {
        const written = this.#written.get(run.id);
        const first = written?.lines === run.lines ? written.count : 0;
        if (first === 0) lines.delete(linesOf(run.id));
        if (run.lines.length === 0) {
          runs.delete(run.id);
          this.#written.delete(run.id);
          continue;
        }
        runs.put({ ...headOf(run), view: run.view });
        if (first < run.lines.length) lines.put({ run: run.id, first, lines: run.lines.slice(first) });
        this.#written.set(run.id, { lines: run.lines, count: run.lines.length });
      }
    }).catch(() => {
      // What was not written is written with what comes next.
      for (const run of changed) this.#written.delete(run.id);
    });
  }

  async #write(change) {
    const base = this.#base ?? (await this.#open());
    if (base === null) return;
    try {
      const work = base.transaction(["runs", "lines"], "readwrite", { durability: "relaxed" });
      change(work.objectStore("runs"), work.objectStore("lines"));
      // Asked for now: by itself it comes after the requests' answers, which a page that is left does not get.
      work.commit();
      await new Promise((done, failed) => {
        work.oncomplete = done;
        work.onabort = () => failed(work.error);
      });
    } catch (error) {
      this.#tell(error?.name === "QuotaExceededError" ? FULL : LOST);
      throw error;
    }
  }

  #open() {
    this.#opening ??= opened().then(
      (base) => {
        base.onclose = () => (this.#base = null);
        return (this.#base = base);
      },
      () => {
        this.#tell(LOST);
        return null;
      },
    );
    return this.#opening;
  }

  #tell(sentence) {
    if (this.#told.has(sentence)) return;
    this.#told.add(sentence);
    this.dispatchEvent(new CustomEvent("trouble", { detail: sentence }));
  }
}

async function opened() {
  // In some private windows the name is there and `open` throws.
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => {
    request.result.createObjectStore("runs", { keyPath: "id" });
    request.result.createObjectStore("lines", { keyPath: ["run", "first"] });
  };
  return await result(request);
}

/** Returns the lines of parts. One that a later write holds too is left out. */
function joined(parts) {
  const lines = [];
  for (const part of parts) if (part.first === lines.length) lines.push(...part.lines);
  return lines;
}

function linesOf(id) {
  return IDBKeyRange.bound([id, 0], [id, Infinity]);
}

function result(request) {
  return new Promise((done, failed) => {
    request.onsuccess = () => done(request.result);
    request.onerror = () => failed(request.error);
  });
}
