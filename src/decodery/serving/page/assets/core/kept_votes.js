// Keeps a person's votes in this browser (localStorage).

import { keptVotes } from "./import_votes.js";

const NAME = "decodery-votes";
const FULL = "The browser has no room for more votes: save them as a file before you close the page.";
const LOST = "The browser does not let the page keep votes: save them as a file before you close the page.";
const DAMAGED = "The votes that this browser kept cannot be read. The tally begins anew with the next vote.";
const PARTLY = "Some of the votes that this browser kept cannot be read. The next vote takes their place.";

/** Dispatches "change" when votes come or go, and "trouble" with a sentence in `detail` where they cannot be kept. */
export class KeptVotes extends EventTarget {
  #votes = [];
  /** True while the browser has all votes. */
  #kept = true;
  #told = new Set();

  /** Reads what the browser has kept, and follows what other tabs change. Called once, with the listeners there. */
  load() {
    this.#read();
    addEventListener("storage", ({ key }) => {
      // null: all storage was cleared. Votes that the browser did not take stay.
      if (this.#kept && (key === NAME || key === null)) this.#read();
    });
  }

  get list() {
    return this.#votes;
  }

  /** Adds votes, and returns how many are new: those with the id of another one are left out. */
  add(votes) {
    // Another tab may have written since.
    if (this.#kept) this.#read();
    const known = new Set(this.#votes.map(({ id }) => id));
    const added = [];
    for (const vote of votes) {
      if (known.has(vote.id)) continue;
      known.add(vote.id);
      added.push(vote);
    }
    this.#votes = [...this.#votes, ...added];
    this.#write();
    return added.length;
  }

  clear() {
    this.#votes = [];
    this.#write();
  }

  #read() {
    try {
      const { votes, damaged } = keptVotes(localStorage.getItem(NAME) ?? "[]");
      this.#votes = votes;
      this.#kept = true;
      if (damaged > 0) this.#tell(PARTLY);
    } catch (error) {
      // A damaged value is left as it is until a vote takes its place.
      this.#tell(error instanceof DOMException || error instanceof TypeError ? LOST : DAMAGED);
      this.#kept = false;
    }
    this.dispatchEvent(new Event("change"));
  }

  #write() {
    try {
      if (this.#votes.length === 0) localStorage.removeItem(NAME);
      else localStorage.setItem(NAME, JSON.stringify(this.#votes));
      this.#kept = true;
      // A later fault is told again.
      this.#told.clear();
    } catch (error) {
      this.#kept = false;
      this.#tell(error?.name === "QuotaExceededError" ? FULL : LOST);
    }
    this.dispatchEvent(new Event("change"));
  }

  #tell(sentence) {
    if (this.#told.has(sentence)) return;
    this.#told.add(sentence);
    this.dispatchEvent(new CustomEvent("trouble", { detail: sentence }));
  }
}
