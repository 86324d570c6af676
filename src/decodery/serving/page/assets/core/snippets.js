// Writes code that gives a run's bytes again: for curl, for Python, and for the command line.

import { commandLine } from "./command_line.js";
import { DEFAULT_MAX_TOKENS } from "./limits.js";
import { streamSeed } from "./noise.js";
import { pythonCode } from "./python_code.js";
import { jsonText, SnippetError } from "./snippet_texts.js";

/**
 * What a snippet needs to know beside the run.
 * @typedef {{address: string, keyed: boolean, described: object | null}} Place
 *   `address` is the server's, without a slash at the end; `keyed`: it asks for a key; `described` is what `GET /trace`
 *   tells of the run's model, or null
 */

/** Returns a command for curl. It asks `/v1/completions` where that route can say the same, else `/trace`. */
export function curl(run, place) {
  const { model, asked, params, rest } = askedOf(run);
  const prompt = asked.text ?? asked.ids;
  const route = saysTheSame(asked, params, rest, place.described) ? "/v1/completions" : "/trace";
  const body =
    route === "/trace"
      ? { model, requests: [{ prompt, ...rest, params }] }
      : { model, prompt, max_tokens: DEFAULT_MAX_TOKENS, ...params };
  const key = place.keyed ? `  -H "Authorization: Bearer $DECODERY_KEY" \\\n` : "";
  // A here-document: the shell reads nothing in it, and it may be of any length.
  return (
    `curl -sS ${place.address}${route} \\\n  -H 'Content-Type: application/json' \\\n${key}` +
    `  --data-binary @- <<'END'\n${written(body, "")}\nEND\n`
  );
}

/** Returns a program in Python. Throws `SnippetError`. */
export function python(run, place) {
  const { asked, params, rest } = askedOf(run);
  return pythonCode(asked, ownParams(params, rest), rest.generated ?? 0, place.described?.arguments ?? {});
}

/** Returns a command of `decodery generate`, for bash and zsh. Throws `SnippetError`. */
export function cli(run, place) {
  const { asked, params, rest } = askedOf(run);
  return commandLine(asked, ownParams(params, rest), rest.generated ?? 0, place.described?.arguments ?? {});
}

/** Returns what the trace's header says was asked; `rest` are the fields that only `/trace` has. */
function askedOf(run) {
  const header = run.lines[0];
  const request = header?.requests?.[0];
  if (request === undefined) throw new SnippetError("The run has not begun.");
  const { prompt = null, prompt_token_ids: ids, seed, params, generated, stream } = request;
  const rest = generated ? { generated, stream: stream ?? undefined } : {};
  const found = { ...params, seed };
  checkNumbers(found);
  return { model: header.model, asked: { text: prompt, ids }, params: found, rest };
}

function checkNumbers(value) {
  if (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value)) {
    throw new SnippetError(`The number ${value} is larger than a web page reads exactly.`);
  }
  if (typeof value === "object" && value !== null) Object.values(value).forEach(checkNumbers);
}

/** Returns the parameters that draw the text alone which is one of several completions of `params`. */
function ownParams(params, { stream }) {
  if (stream === undefined) return params;
  return { ...params, n: 1, best_of: null, seed: streamSeed(BigInt(params.seed), stream) };
}

/** True if `/v1/completions` reads the request as `/trace` does, and does not refuse it for the context's length. */
function saysTheSame({ ids }, params, rest, described) {
  // A null is absent there, and the server's own default would hold.
  if (rest.generated || Object.values(params).includes(null) || !described) return false;
  const tokens = params.max_tokens ?? DEFAULT_MAX_TOKENS;
  return tokens > 0 && ids.length + tokens <= described.capacity;
}

/** Returns JSON with one field a line, lists of plain values on one line, and no character that cannot be seen. */
function written(value, indent) {
  if (typeof value === "string") return jsonText(value);
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const inner = `${indent}  `;
  const isList = Array.isArray(value);
  const parts = isList
    ? value.map((one) => written(one, inner))
    : Object.entries(value)
        .filter(([, one]) => one !== undefined)
        .map(([key, one]) => `${jsonText(key)}: ${written(one, inner)}`);
  const [open, close] = isList ? "[]" : "{}";
  if (parts.length === 0) return open + close;
  if (isList && value.every((one) => typeof one !== "object")) return `[${parts.join(", ")}]`;
  return `${open}\n${parts.map((part) => inner + part).join(",\n")}\n${indent}${close}`;
}
