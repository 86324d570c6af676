// Reads a run from a file that somebody gives. Nothing in the file is trusted before it is checked.

import { faultOf } from "./check_schema.js";
import { fromJson, RUN_FORMAT, RUN_VERSION } from "./run_json.js";

export const MOST_BYTES = 50_000_000;
const DEEPEST = 64;
const MOST_VALUES = 10_000_000;
/** Keys that reach an object's prototype. No field of a run has such a name. */
const FORBIDDEN = ["__proto__", "constructor", "prototype"];
/** A page of a run holds its JSON in this element (`pictures/html_page.py`). */
const BEGIN = '<script id="run" type="application/json">';
const END = "</script>";

/** A file that is no run; the message is a sentence for its reader. */
export class ImportError extends Error {}

/**
 * Returns the run of a file: JSON, or a page that holds a run. Throws `ImportError`.
 * @param {File} file
 * @param {object} schema that of `run_schema.json`
 */
export async function readRun(file, schema) {
  if (file.size > MOST_BYTES) throw new ImportError(`The file is larger than ${MOST_BYTES / 1e6} MB.`);
  const plain = parsed(await file.text());
  checkValues(plain);
  if (plain?.format !== RUN_FORMAT) throw new ImportError("The file is not a run of Decodery.");
  if (plain.version !== RUN_VERSION) {
    throw new ImportError(`The run has version ${shown(plain.version)}; this page reads version ${RUN_VERSION}.`);
  }
  const fault = faultOf(plain, schema);
  if (fault !== null) throw new ImportError(`The run is damaged: ${shown(String(fault))}.`);
  checkLines(plain.lines);
  return fromJson(plain);
}

function parsed(text) {
  const begin = text.indexOf(BEGIN);
  const json = text.trimStart().startsWith("<") && begin >= 0 ? text.slice(begin + BEGIN.length, text.indexOf(END, begin)) : text;
  try {
    return JSON.parse(json);
  } catch {
    throw new ImportError("The file is neither JSON nor a page of a run.");
  }
}

/** Refuses forbidden keys and values nested too deep, wherever they are. Not recursive: depth is not known yet. */
export function checkValues(plain) {
  const open = [[plain, 0]];
  let count = 0;
  while (open.length > 0) {
    const [value, depth] = open.pop();
    if (typeof value !== "object" || value === null) continue;
    if (depth > DEEPEST) throw new ImportError(`The file is nested deeper than ${DEEPEST} levels.`);
    for (const key of Object.keys(value)) {
      if (FORBIDDEN.includes(key)) throw new ImportError(`The file has the key ${key}, which is not allowed.`);
      count += 1;
      if (count > MOST_VALUES) throw new ImportError("The file has too many values.");
      open.push([value[key], depth + 1]);
    }
  }
}

/** Checks what the schema cannot say: that the lines fit together. */
function checkLines(lines) {
  const spelled = new Set();
  let beams = null;
  lines.forEach((line, place) => {
    const must = (holds, what) => {
      if (!holds) throw new ImportError(`The run is damaged: line ${place} ${what}.`);
    };
    must((line.kind === "trace") === (place === 0), place === 0 ? "is no header" : "is a second header");
    must(place === lines.length - 1 || (line.kind !== "end" && line.kind !== "error"), "ends the run, and others follow");
    if (line.kind === "tokens") for (const [token] of line.tokens) spelled.add(token);
    if (line.kind === "text") must(line.event.token_ids.every((token) => spelled.has(token)), "has a token that is not spelled");
    if (line.kind === "given") {
      const named = line.positions.flatMap(({ token, choice }) => [token, ...(choice === null ? [] : tokensOf(choice))]);
      must(named.every((token) => spelled.has(token)), "has a token that is not spelled");
    }
    if (line.kind === "event") beams = checkEvent(line.event, spelled, beams, must);
  });
}

/** Checks an event, and returns how many beams live after it; null before the first ones. */
function checkEvent(event, spelled, beams, must) {
  const { tokens = [], considered = [], drafts = [], accepted = 0, logprobs = [] } = event;
  must(considered.length === 0 || considered.length === tokens.length, "has another number of choices than of tokens");
  must(logprobs.length === 0 || logprobs.length === tokens.length, "has another number of log-probabilities than of tokens");
  must(accepted >= 0 && accepted <= Math.min(drafts.length, tokens.length), "accepts drafts that are not there");
  const named = [...tokens, ...drafts, ...considered.flatMap(tokensOf), ...(event.beams ?? []).map(({ token }) => token)];
  must(named.every((token) => spelled.has(token)), "has a token that is not spelled");
  for (const { candidates, stages = [], combined = [] } of considered) {
    const lists = [...stages.map((stage) => stage.probabilities), ...combined.flatMap(({ own, other }) => [own, other])];
    must(lists.every((list) => list.length === candidates.length), "has a stage without its candidates");
  }
  if (!event.beams?.length) return beams;
  // Before the first step there is one beam.
  must(event.beams.every(({ parent }) => parent >= 0 && parent < (beams ?? 1)), "has a beam without its parent");
  const kept = event.beams.filter(({ fate }) => fate === "kept");
  must(kept.every(({ beam }) => Number.isInteger(beam) && beam >= 0 && beam < kept.length), "has a beam without a place");
  return kept.length;
}

function tokensOf({ token, candidates, allowed_tokens: allowed = [], weighed = [] }) {
  return [token, ...allowed, ...[...candidates, ...weighed].map((one) => one.token)];
}

/** Returns a value of the file as a short text. */
export function shown(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value) ?? "none";
  return text.length > 120 ? `${text.slice(0, 119)}…` : text;
}
