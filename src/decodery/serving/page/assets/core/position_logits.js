// Fetches the logits of a position. The server computes them again over the pages that its prefix cache holds.

import { completionOf } from "./branches.js";
import { drawKey, streamSeed } from "./noise.js";
import { TRACE_VERSION, number } from "./run.js";

/** Logits that differ by more than this are those of another model than the run's. */
const SAME = 1e-3;

/**
 * Returns a request for the choice at a position of a stream, with the parameters changed as given.
 *
 * The text before the position counts as generated, so that penalties, grammars and noise are those of the run.
 */
export function positionRequest(run, stream, index, changes = {}) {
  const before = stream.tokens.slice(0, index);
  const params = {
    ...run.params,
    ...changes,
    max_tokens: index + 1,
    max_length: null,
    max_time: null,
    logprobs: null,
    prompt_logprobs: null,
    seed: run.seed,
  };
  // No more than max_tokens, and end tokens stay banned here if they were.
  if (run.params.min_tokens != null) params.min_tokens = Math.min(run.params.min_tokens, index + 1);
  // The last token that a text may have is forced; this one is the last only here.
  if (run.params.max_tokens !== index + 1) params.forced_eos_token_id = null;
  const request = { prompt: [...run.promptTokenIds, ...before], params };
  if (index > 0) request.generated = index;
  const drawn = completionOf(run, stream);
  if (drawn !== null) request.stream = drawn;
  return request;
}

/**
 * Returns the key of the noise at a position of a stream: where nothing was drawn, that of a draw with the run's seed.
 * @returns {readonly [number, number] | null} null where the seed is not known exactly
 */
export function drawKeyOf(run, stream, index) {
  const told = stream.positions[index].choice?.draw_key;
  if (told != null) return told;
  if (!Number.isSafeInteger(run.seed)) return null;
  const seed = streamSeed(BigInt(run.seed), completionOf(run, stream) ?? 0);
  return drawKey(seed, run.promptTokenIds.length + index);
}

/**
 * Returns the choice that a request for one token makes.
 * @returns {Promise<object>} as on the wire
 */
export async function askChoice(api, model, request, { candidates = 1, logits = false, signal } = {}) {
  const body = { model, requests: [request], candidates, logits };
  let found = null;
  for await (const line of api.lines("/trace", body, signal)) {
    if (line.kind === "trace" && line.version !== TRACE_VERSION) {
      throw new Error(`The server's traces have version ${line.version}; this page reads version ${TRACE_VERSION}.`);
    }
    if (line.kind === "error") throw new Error(line.error.message);
    if (line.kind === "output" && line.output.error) throw new Error(line.output.error);
    if (line.kind === "event") found ??= line.event.considered?.[0] ?? null;
  }
  if (found === null) throw new Error("The server told no choice for this position.");
  return found;
}

/**
 * Returns a position's logits: `model` as the model gave them, and `adjusted` as they are before temperature and
 * truncation.
 * @returns {Promise<{model: Float32Array, adjusted: Float32Array}>}
 */
export async function fetchLogits(api, run, stream, index, signal) {
  // Mirostat follows from the draws before. It comes after these logits.
  const request = positionRequest(run, stream, index, { mirostat_mode: 0 });
  const choice = await askChoice(api, run.model, request, { logits: true, signal });
  if (choice.logits === undefined) throw new Error("The server told no logits for this position.");
  const model = floats(choice.logits);
  const { choice: recorded } = stream.positions[index];
  if (recorded !== null && !agree(recorded, model)) {
    throw new Error("The server's model is not the one that wrote this text.");
  }
  return { model, adjusted: choice.adjusted_logits === undefined ? model : floats(choice.adjusted_logits) };
}

/** Returns the float32 numbers that a text in base64 holds, in little-endian order. */
export function floats(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) bytes[i] = binary.charCodeAt(i);
  return new Float32Array(bytes.buffer);
}

/** True if the logits are those by which the recorded choice was made. */
function agree(choice, logits) {
  return choice.candidates.every(({ token, logit }) => {
    if (logit == null) return true;
    const [told, found] = [number(logit), logits[token]];
    return told === found || Math.abs(told - found) <= SAME * Math.max(1, Math.abs(told));
  });
}
