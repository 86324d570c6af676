// Writes runs as JSON and reads them: what the browser keeps, and files that people exchange.

import { Run, RunReader, spelledLine } from "./run.js";

export const RUN_FORMAT = "decodery-run";
export const RUN_VERSION = 1;

/** Returns what tells a run apart, without its lines. */
export function headOf({ id, title, created, parent, messages, state, error }) {
  return { format: RUN_FORMAT, version: RUN_VERSION, id, title, created, parent, messages, state, error };
}

/** Returns a run as plain JSON, in the form of `run_schema.json`. */
export function toJson(run) {
  return { ...headOf(run), lines: asPlain(run.lines) };
}

/** Returns the run of an object that `toJson` made; one that had not ended is cut. */
export function fromJson({ lines, ...head }) {
  const { id, title, created, parent, messages } = head;
  const run = new Run({ id, title, created, parent, messages });
  const reader = new RunReader([run]);
  for (const line of lines) reader.feed(line);
  if (head.state === "failed" && !reader.ended) reader.fail(head.error);
  else reader.cut(head.state === "cut" ? head.error : null);
  return run;
}

/**
 * Returns the lines of a text whose tokens were chosen one at a time: all of them are given.
 * @param {object} header the header of an answer to the same prompt
 */
export function givenLines(header, run, { positions, text, finishReason }) {
  const ids = [...run.promptTokenIds, ...positions.map(({ token }) => token)];
  const { params, seed, drawn } = run;
  const asked = { prompt: run.prompt, prompt_token_ids: ids, seed, params, generated: positions.length, generated_text: text };
  const told = { index: 0, text: "", token_ids: [], logprobs: [], finish_reason: finishReason };
  return [
    { ...header, requests: [drawn === null ? asked : { ...asked, stream: drawn }] },
    spelledLine(run.pieces),
    { kind: "given", positions: [...positions] },
    { kind: "text", request: 0, event: told },
    { kind: "end" },
  ];
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
