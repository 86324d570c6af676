// Defines a run: one request's traced generation, which grows by the lines of `/trace` (docs/trace.md).

import { fromHex, toHex } from "./hex.js";

export const TRACE_VERSION = 1;

/** Returns a new id. `crypto.randomUUID` is missing where the page comes by http from another host. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = toHex(bytes);
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** One token of a stream. `choice` is what the step considered, as on the wire, or null. */
export class Position {
  /**
   * @param {number} token
   * @param {object | null} choice
   * @param {{logprob?: number | null, drafted?: number | null, source?: string | null, accepted?: boolean,
   *   picked?: boolean}} [more]
   *   `drafted` is the draft that was tried here, `source` its origin, and `accepted` says that it is the token;
   *   `picked` says that a person chose the token
   */
  constructor(token, choice = null, { logprob = null, drafted = null, source = null, accepted = false, picked = false } = {}) {
    this.token = token;
    this.choice = choice;
    this.logprob = logprob;
    this.drafted = drafted;
    this.source = source;
    this.accepted = accepted;
    this.picked = picked;
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
  #given;
  #givenText = "";

  constructor({ id = newId(), title = "", model = "", created = Date.now(), parent = null, ...asked } = {}) {
    super();
    this.id = id;
    this.title = title;
    this.model = model;
    this.created = created;
    this.parent = parent;
    /** The messages that the run replies to, {role, content, run?}, where `run` is the id of a reply's; else null. */
    this.messages = asked.messages ?? null;
    /** The name of the view that began the run. */
    this.view = asked.view ?? "write";
    this.prompt = asked.prompt ?? null;
    this.promptTokenIds = asked.promptTokenIds ?? [];
    this.params = asked.params ?? {};
    this.seed = asked.seed ?? null;
    this.streams = [];
    /** How many first tokens of each stream were given with the request: the text that it goes on from. */
    this.generated = asked.given?.length ?? 0;
    /** Which of several completions of the parameters the only stream is; null where it is none of several. */
    this.drawn = asked.drawn ?? null;
    this.#given = asked.given ?? [];
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
    this.pieces = new Map(asked.pieces ?? []);
    this.warnings = [];
    /** The lines that made the run, as those of a trace with this request alone. They are what is kept of it. */
    this.lines = [];
  }

  /** How many tokens the model's vocabulary has; undefined before the run has begun. */
  get vocabSize() {
    return this.lines[0]?.vocab_size;
  }

  get ended() {
    return this.state === "done" || this.state === "cut" || this.state === "failed";
  }

  stream(index) {
    while (this.streams.length <= index) {
      const added = new Stream(this.streams.length);
      added.positions.push(...this.#given);
      added.text = this.#givenText;
      this.streams.push(added);
    }
    return this.streams[index];
  }

  /** The positions that were given with the request. */
  get given() {
    return this.#given;
  }

  /** Sets the given positions, before any stream has begun. */
  setGiven(positions) {
    this.#given = positions;
  }

  /** Sets the text of the given tokens, before any other text has come. */
  setGivenText(text) {
    this.#givenText = text;
    for (const stream of this.streams) stream.text = text;
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
  /** The streams whose text the server has told. */
  #told = new Set();

  /** @param {Run[]} runs one for each request, in order */
  constructor(runs) {
    this.#runs = runs;
    this.ended = false;
  }

  feed(line) {
    this.#note(line);
    if (line.kind === "trace") this.#header(line);
    else if (line.kind === "given") this.#runs[0].setGiven(line.positions.map(positionOf));
    else if (line.kind === "tokens") this.#spelled(line);
    else if (line.kind === "progress") this.#progress(this.#runs[line.request], line.progress);
    else if (line.kind === "event") this.#event(this.#runs[line.event.request], line.event);
    else if (line.kind === "text") this.#text(this.#runs[line.request], line.event);
    else if (line.kind === "output") this.#output(this.#runs[line.request], line.output);
    else if (line.kind === "end") this.#end();
    else if (line.kind === "error") this.fail(line.error.message);
  }

  #note(line) {
    if (line.kind === "trace") {
      line.requests.forEach((request, place) => {
        const run = this.#runs[place];
        run?.lines.push({ ...line, requests: [request] });
        if (run?.given.length > 0) run.lines.push(spelledLine(run.pieces), { kind: "given", positions: run.given });
      });
    } else if (line.kind === "event") {
      this.#runs[line.event.request].lines.push({ ...line, event: { ...line.event, request: 0 } });
    } else if (line.kind === "text" || line.kind === "output") {
      this.#runs[line.request].lines.push({ ...line, request: 0 });
    } else if (line.kind !== "progress") {
      for (const run of this.#runs) run.lines.push(line);
    }
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
      run.generated = request.generated ?? 0;
      run.drawn = request.stream ?? null;
      run.promptTokenIds = request.prompt_token_ids.slice(0, request.prompt_token_ids.length - run.generated);
      run.setGivenText(request.generated_text ?? "");
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
    const sorted = run.params.best_of != null && run.drawn === null;
    const stream = sorted ? this.#sameTokens(run, event.token_ids) : run.stream(event.index);
    if (stream === undefined) return;
    this.#told.add(stream);
    stream.text += event.text;
    if (event.finish_reason) stream.finishReason = event.finish_reason;
    if (event.stop_reason !== undefined) stream.stopReason = event.stop_reason;
    if (event.error) stream.error = event.error;
    run.changed();
  }

  #sameTokens(run, tokens) {
    return run.streams.find((stream) => {
      const own = stream.positions.slice(run.generated);
      return !this.#told.has(stream) && own.length === tokens.length && tokens.every((token, i) => token === own[i].token);
    });
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

/** Returns the line that spells tokens: a run that goes on from another one has the spelling of that one's tokens. */
export function spelledLine(pieces) {
  const tokens = [...pieces].map(([token, { bytes }]) => [token, toHex(bytes)]);
  const special = [...pieces].filter(([, piece]) => piece.special).map(([token]) => token);
  return { kind: "tokens", tokens, special };
}

/** Returns the position of a plain object. */
function positionOf({ token, choice, logprob, ...more }) {
  return new Position(token, choice && withNumbers(choice), { ...more, logprob: logprob === null ? null : number(logprob) });
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

const NUMBERS = { inf: Infinity, "-inf": -Infinity, nan: NaN };

/** Returns a number of the wire, on which infinities are texts. */
export function number(value) {
  return typeof value === "string" ? (NUMBERS[value] ?? NaN) : value;
}

/** Changes the texts of infinities in an object of the wire into numbers, and returns it. */
function withNumbers(object) {
  for (const key of Object.keys(object)) {
    const value = object[key];
    if (typeof value === "string" && Object.hasOwn(NUMBERS, value)) object[key] = NUMBERS[value];
    else if (typeof value === "object" && value !== null) withNumbers(value);
  }
  return object;
}
