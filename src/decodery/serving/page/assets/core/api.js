// Asks the server. All requests of the page are made here.

import { currentKey } from "./key.js";
import { dataLines } from "./sse.js";

/** An error that the server answered with; `status` is 0 for one that came in a stream. */
export class ServerError extends Error {
  /** @param {number} status @param {string} message @param {string | null} param the field that is wrong */
  constructor(status, message, param = null) {
    super(message);
    this.status = status;
    this.param = param;
  }
}

/** The server could not be reached, or the connection broke. */
export class ConnectionError extends Error {
  constructor() {
    super("The server cannot be reached.");
  }
}

/** Dispatches "unauthorized" when the server asks for a key, "reached" and "unreachable" when that changes. */
export class Api extends EventTarget {
  #reachable = true;

  /** Returns the JSON of an answer; with a body the method is POST. */
  async json(path, body = undefined, signal = undefined) {
    return await this.#read((await this.ask(path, body, signal)).json(), signal);
  }

  /** Yields the lines of `/trace`, parsed. */
  async *lines(path, body, signal = undefined) {
    const answer = await this.ask(path, body, signal);
    try {
      for await (const data of dataLines(answer.body)) yield JSON.parse(data);
    } catch (error) {
      throw this.#known(error, signal);
    }
  }

  /** Yields the chunks of a stream of `/v1`, parsed, up to its [DONE]. */
  async *stream(path, body, signal = undefined) {
    const answer = await this.ask(path, { ...body, stream: true }, signal);
    try {
      for await (const data of dataLines(answer.body)) {
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new ServerError(0, chunk.error.message, chunk.error.param ?? null);
        yield chunk;
      }
    } catch (error) {
      throw this.#known(error, signal);
    }
  }

  /** Returns the `Response`. Throws `ServerError`, `ConnectionError`, or an AbortError. */
  async ask(path, body = undefined, signal = undefined) {
    const headers = {};
    const key = currentKey();
    if (key !== null) headers.Authorization = `Bearer ${key}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const options = { method: body === undefined ? "GET" : "POST", headers, signal };
    if (body !== undefined) options.body = JSON.stringify(body);
    // A relative path, so that a proxy may serve the page below a path of its own.
    const answer = await this.#read(fetch(path.replace(/^\//, ""), options), signal);
    this.#setReachable(true);
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => null);
    if (answer.status === 401) {
      this.dispatchEvent(new CustomEvent("unauthorized", { detail: { hadKey: key !== null } }));
    }
    const message = told?.error?.message ?? `The server answered with ${answer.status}.`;
    throw new ServerError(answer.status, message, told?.error?.param ?? null);
  }

  get reachable() {
    return this.#reachable;
  }

  async #read(promise, signal) {
    try {
      return await promise;
    } catch (error) {
      throw this.#known(error, signal);
    }
  }

  #known(error, signal) {
    // fetch and its streams report a broken connection as a TypeError.
    if (!(error instanceof TypeError) || signal?.aborted) return error;
    this.#setReachable(false);
    return new ConnectionError();
  }

  #setReachable(value) {
    if (this.#reachable === value) return;
    this.#reachable = value;
    this.dispatchEvent(new Event(value ? "reached" : "unreachable"));
  }
}
