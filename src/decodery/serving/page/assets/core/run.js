// Defines a run: one request's traced generation, which grows by the lines of `/trace` (docs/trace.md).

import { fromHex, toHex } from "./hex.js";

export const TRACE_VERSION = 1;
export const RUN_FORMAT = "decodery-run";
export const RUN_VERSION = 1;

/** One token of a stream. `choice` is what the step considered, as on the wire, or null. */
export class Position {
  /**
   * @param {number} token
   * @param {object | null} choice
   * @param {{logprob?: number | null, drafted?: number | null, source?: string | null, accepted?: boolean}} [more]
   *   `drafted` is the draft that was tried here, `source` its origin, and `accepted` says that it is the token
   */
  constructor(token, choice = null, { logprob = null, drafted = null, source = null, accepted = false } = {}) {
    this.token = token;
    this.choice = choice;
    this.logprob = logprob;
    this.drafted = drafted;
    this.source = source;
    this.accepted = accepted;
  }
}

/** One completion of a run. `text` is what the server says. */
export class Stream {
  constructor(index) {
    this.index = index;
    this.positions = [];
    this.finishReason = null;
    this.stopReason = null;
    this.text = "";
    this.score = null;
    this.error = null;
  }

  get tokens() {
    return this.positions.map((position) => position.token);
  }
}

/** Dispatches "change" once per animation frame at most. */
export class Run extends EventTarget {
  #pending = false;

  constructor({ id = crypto.randomUUID(), title = "", model = "", created = Date.now(), parent = null, ...asked } = {}) {
    super();
    this.id = id;
    this.title = title;
    this.model = model;
    this.created = created;
    this.parent = parent;
    this.prompt = asked.prompt ?? null;
    this.promptTokenIds = asked.promptTokenIds ?? [];
    this.params = asked.params ?? {};
    this.seed = asked.seed ?? null;
    this.streams = [];
    /** The candidates of each step of beam search, as on the wire. */
    this.steps = [];
    this.state = "waiting";
    this.error = null;
    /** {prompt, cached, computed, running}: how much of the prompt is computed; null if not told. */
    this.progress = null;
    this.promptLogprobs = null;
    this.cachedTokens = 0;
    this.times = null;
    /** Token id -> {bytes, special}. */
    this.pieces = new Map();
    this.warnings = [];
  }

  get ended() {
    return this.state === "done" || this.state === "cut" || this.state === "failed";
  }

  stream(index) {
    while (this.streams.length <= index) this.streams.push(new Stream(this.streams.length));
    return this.streams[index];
  }

  setState(state, error = null) {
    this.state = state;
    this.error = error;
    this.changed();
  }

  changed() {
    if (this.#pending) return;
    this.#pending = true;
    const tell = () => {
      this.#pending = false;
      this.dispatchEvent(new Event("change"));
    };
    // A hidden page has no animation frames.
    if (document.hidden) setTimeout(tell, 100);
    else requestAnimationFrame(tell);
  }
}

/** Takes the parsed lines of one answer of `/trace` in order, and updates the runs of its requests. */
export class RunReader {
  #runs;

  /** @param {Run[]} runs one for each request, in order */
  constructor(runs) {
    this.#runs = runs;
    this.ended = false;
  }

  feed(line) {
    if (line.kind === "trace") this.#header(line);
    else if (line.kind === "tokens") this.#spelled(line);
    else if (line.kind === "progress") this.#progress(this.#runs[line.request], line.progress);
    else if (line.kind === "event") this.#event(this.#runs[line.event.request], line.event);
    else if (line.kind === "text") this.#text(this.#runs[line.request], line.event);
    else if (line.kind === "output") this.#output(this.#runs[line.request], line.output);
    else if (line.kind === "end") this.#end();
    else if (line.kind === "error") this.fail(line.error.message);
  }

  /** Marks the runs that have not ended: as failed with an error, else as cut. */
  fail(error) {
    this.#close("failed", error);
  }

  cut(error = null) {
    this.#close("cut", error);
  }

  #close(state, error) {
    this.ended = true;
    for (const run of this.#runs) if (!run.ended) run.setState(state, error);
  }

  #header(line) {
    if (line.version !== TRACE_VERSION) {
      throw new Error(`The server's traces have version ${line.version}; this page reads version ${TRACE_VERSION}.`);
    }
    if (line.requests.length !== this.#runs.length) throw new Error("The trace has another number of requests.");
    line.requests.forEach((request, place) => {
      const run = this.#runs[place];
      run.model = line.model;
      run.prompt = request.prompt;
      run.promptTokenIds = request.prompt_token_ids;
      run.params = request.params;
      run.seed = request.seed;
      run.changed();
    });
  }

  #spelled(line) {
    const special = new Set(line.special ?? []);
    for (const [token, hex] of line.tokens) {
      const piece = { bytes: fromHex(hex), special: special.has(token) };
      for (const run of this.#runs) run.pieces.set(token, piece);
    }
  }

  #progress(run, progress) {
    run.progress = { prompt: 0, cached: 0, computed: 0, running: false, ...progress };
    if (run.state === "waiting" && progress.running) run.state = "prefill";
    run.changed();
  }

  #event(run, event) {
    if (event.cached_tokens) run.cachedTokens = event.cached_tokens;
    if (event.prompt_logprobs) run.promptLogprobs = event.prompt_logprobs;
    if (event.times) run.times = event.times;
    if (event.beams) run.steps.push(event.beams.map(withNumbers));
    if (event.stream !== null && event.stream !== undefined) addEvent(run.stream(event.stream), event);
    if (!run.ended) run.state = "running";
    run.changed();
  }

  #text(run, event) {
    if (event.warnings) run.warnings = event.warnings;
    // The best of several are numbered anew when they are known.
    const stream = run.params.best_of == null ? run.stream(event.index) : sameTokens(run, event.token_ids);
    if (stream === undefined) return;
    stream.text += event.text;
    if (event.finish_reason) stream.finishReason = event.finish_reason;
    if (event.stop_reason !== undefined) stream.stopReason = event.stop_reason;
    if (event.error) stream.error = event.error;
    run.changed();
  }

  #output(run, output) {
    if (output.error) run.setState("failed", output.error);
    else run.setState("done");
  }

  #end() {
    this.ended = true;
    for (const run of this.#runs) if (!run.ended) run.setState("done");
  }
}

function addEvent(stream, event) {
  const drafts = event.drafts ?? [];
  const accepted = event.accepted ?? 0;
  (event.tokens ?? []).forEach((token, i) => {
    const choice = event.considered?.[i];
    stream.positions.push(
      new Position(token, choice === undefined ? null : withNumbers(choice), {
        logprob: event.logprobs?.[i] === undefined ? null : number(event.logprobs[i].logprob),
        drafted: drafts[i] ?? null,
        source: event.draft_sources?.[i] ?? null,
        accepted: i < accepted,
      }),
    );
  });
  if (event.finish) stream.finishReason = event.finish;
  if (event.error) stream.error = event.error;
  if (event.score !== undefined) stream.score = number(event.score);
}

function sameTokens(run, tokens) {
  return run.streams.find(
    ({ positions, text }) =>
      text === "" && positions.length === tokens.length && positions.every(({ token }, i) => token === tokens[i]),
  );
}

const NUMBERS = { inf: Infinity, "-inf": -Infinity, nan: NaN };

/** Returns a number of the wire, on which infinities are texts. */
export function number(value) {
  return typeof value === "string" ? (NUMBERS[value] ?? NaN) : value;
}

/** Changes the texts of infinities in an object of the wire into numbers, and returns it. */
function withNumbers(object) {
  for (const key of Object.keys(object)) {
    const value = object[key];
    if (typeof value === "string" && value in NUMBERS) object[key] = NUMBERS[value];
    else if (Array.isArray(value)) value.forEach((one) => typeof one === "object" && one !== null && withNumbers(one));
  }
  return object;
}

/** Returns a copy of a plain value, in which infinities are the texts that they are on the wire. */
function asPlain(value) {
  if (typeof value === "number") {
    if (Number.isFinite(value)) return value;
    return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
  }
  if (Array.isArray(value)) return value.map(asPlain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, asPlain(one)]));
}

/** Returns a run as plain JSON. */
export function toJson(run) {
  const plain = { format: RUN_FORMAT, version: RUN_VERSION };
  for (const name of PLAIN) plain[name] = asPlain(run[name]);
  plain.streams = asPlain(run.streams);
  plain.pieces = [...run.pieces].map(([token, { bytes, special }]) => [token, toHex(bytes), special]);
  return plain;
}

/** Returns the run of a plain object that `toJson` made; one that was running is cut. */
export function fromJson(plain) {
  const run = new Run({ id: plain.id });
  for (const name of PLAIN) if (plain[name] !== undefined) run[name] = plain[name];
  run.steps = run.steps.map((step) => step.map(withNumbers));
  run.streams = plain.streams.map(({ positions, ...fields }) => {
    const stream = Object.assign(new Stream(fields.index), fields, { score: number(fields.score) });
    stream.positions = positions.map(
      ({ token, choice, logprob, ...more }) =>
        new Position(token, choice && withNumbers(choice), { ...more, logprob: number(logprob) }),
    );
    return stream;
  });
  run.pieces = new Map(plain.pieces.map(([token, hex, special]) => [token, { bytes: fromHex(hex), special }]));
  if (!run.ended) run.state = "cut";
  return run;
}

const PLAIN = [
  ...["id", "title", "model", "created", "parent", "prompt", "promptTokenIds", "params", "seed", "steps", "state"],
  ...["error", "promptLogprobs", "cachedTokens", "times", "warnings"],
];
