// Makes variants of a prompt: one word deleted or replaced, or one token taken for another.

import { label } from "./spelling.js";
import { tokenize } from "./tokenizing.js";
import { indicesOfBytes, sliceOfSpan, wellFormed } from "./utf8.js";
import { without, wordAt } from "./words.js";

// Characters of context that a change is shown with.
const CONTEXT = 28;

/**
 * A prompt with its tokens, and how it differs from the first one: a part `deleted` and a part `added`, between the
 * parts `before` and `after`.
 * @typedef {{ids: number[], text: string, change: {before: string, deleted: string, added: string, after: string}}} Variant
 */

/** Holds a prompt as it was written, with its tokens. */
export class Prompt {
  /** @param {string} model @param {string} text @param {import("./tokenizing.js").Tokenized} tokenized */
  constructor(model, text, tokenized) {
    this.model = model;
    this.text = text;
    this.ids = tokenized.ids;
    this.spans = tokenized.spans;
    this.pieces = tokenized.pieces;
    this.indices = indicesOfBytes(text);
  }

  static async ask(api, model, text, signal) {
    const read = wellFormed(text);
    return new Prompt(model, read, await tokenize(api, model, read, { signal }));
  }

  /** Returns the range in UTF-16 of a token. */
  slice(place) {
    return sliceOfSpan(this.spans[place], this.indices);
  }

  /** Returns the range of the word that a token is part of, or null where the token has no text. */
  word(place) {
    const [start, end] = this.slice(place);
    return start === end ? null : wordAt(this.text, start);
  }

  /** Returns a variant of which this is the beginning: the prompt itself. @returns {Variant} */
  asWritten() {
    return { ids: this.ids, text: this.text, change: { before: last(this.text, 2 * CONTEXT), deleted: "", added: "", after: "" } };
  }

  /** Returns the variant without a range, or with another text in its place. Its text is divided anew. */
  async replaced(api, [start, end], added, signal) {
    const text = added === "" ? without(this.text, [start, end]) : this.text.slice(0, start) + added + this.text.slice(end);
    const { ids } = await tokenize(api, this.model, wellFormed(text), { signal });
    return { ids, text, change: this.#change([start, end], added) };
  }

  /** Returns the variant with another token in the place of one; the other tokens stay as they are. */
  withToken(place, token, pieces) {
    const ids = [...this.ids.slice(0, place), token, ...this.ids.slice(place + 1)];
    return { ids, text: null, change: this.#change(this.slice(place), label(token, pieces)) };
  }

  #change([start, end], added) {
    return {
      before: last(this.text.slice(0, start), CONTEXT),
      deleted: this.text.slice(start, end),
      added,
      after: first(this.text.slice(end), CONTEXT),
    };
  }
}

function last(text, count) {
  const kept = [...text].slice(-count).join("");
  return kept.length < text.length ? `… ${kept}` : kept;
}

function first(text, count) {
  const kept = [...text.slice(0, 4 * count)].slice(0, count).join("");
  return kept.length < text.length ? `${kept} …` : kept;
}
