// Makes a text go on from one of its places, as a run of its own.

import { continuation, homeOf } from "./branches.js";
import { mostTokens } from "./limits.js";
import { newSeed } from "./runs.js";
import { label } from "./spelling.js";

/** Starts branches and opens them in the view "Write". */
export class Brancher {
  #app;

  constructor(app) {
    this.#app = app;
  }

  /** Goes on with a token in place of the one at `index`; opens the branch that already did. */
  branch({ run, stream, index, token }) {
    const from = typeof stream === "number" ? run.stream(stream) : stream;
    const home = this.#home(run, from, index);
    const known = this.#app.runs.list().find(
      ({ parent }) =>
        parent?.run === home.run.id && parent.stream === home.stream.index && parent.position === index && parent.token === token,
    );
    if (known !== undefined) this.#app.open("write", { run: known.id });
    else this.#start(home, index, token, continuation(home.run, home.stream, index, [token]));
  }

  /** Goes on after the tokens of a beam, from the first step on. */
  branchFromBeam({ run, tokens }) {
    const best = run.stream(0);
    const given = run.generated;
    let place = given;
    while (place - given < tokens.length && best.positions[place]?.token === tokens[place - given]) place += 1;
    const title = `beam after ${label(tokens.at(-1), run.pieces)}`;
    const request = { ...continuation(run, best, given, tokens), title };
    this.#start({ run, stream: best }, place, tokens[place - given] ?? null, request);
  }

  /** Draws the text anew from a position on, with another seed. */
  drawAgain(run, stream, index) {
    const home = this.#home(run, stream, index);
    this.#start(home, index, null, continuation(home.run, home.stream, index, [], { seed: newSeed() }));
  }

  /** Goes on at the end; where the limit of tokens was reached, with room for as many again. */
  writeOn(run, stream) {
    const count = stream.positions.length;
    const most = mostTokens(run.params);
    const changes = most !== null && count >= most ? { max_tokens: count + most } : {};
    this.#start({ run, stream }, count, null, { ...continuation(run, stream, count, [], changes), title: `on from ${count + 1}` });
  }

  #home(run, stream, index) {
    return homeOf((id) => this.#app.runs.get(id), run, stream, index);
  }

  #start(home, position, token, request) {
    const { runs } = this.#app;
    const parent = { run: home.run.id, stream: home.stream.index, position, token };
    const [run] = runs.start({ model: home.run.model, requests: [request], parent });
    const told = () => {
      if (!run.ended) return;
      run.removeEventListener("change", told);
      if (run.state !== "failed" || run.streams.some(({ positions }) => positions.length > run.generated)) return;
      // What was refused is no branch.
      this.#app.notify(run.error, "error");
      runs.remove(run);
      this.#app.open("write", { run: home.run.id });
    };
    run.addEventListener("change", told);
    this.#app.open("write", { run: run.id });
  }
}
