// Asks the server for the log-probabilities of prompts, and of answers that follow prompts. Answers are joined by ids.

import { ServerError } from "./api.js";
import { Run, RunReader, number } from "./run.js";

// Requests of one POST: less than the server takes at most.
const TOGETHER = 64;
const NOTHING_NEW = { max_tokens: 1, temperature: 0, ignore_eos: true, seed: 0 };

/**
 * A token of a prompt under the model: `top` are the likeliest tokens there, as pairs of an id and a log-probability.
 * @typedef {{token: number, logprob: number, rank: number, top: [number, number][]}} TokenLogprobs
 */

/**
 * Returns the log-probability of each token of a prompt; the first has none.
 * @returns {Promise<{logprobs: (TokenLogprobs | null)[], pieces: Map<number, {bytes: Uint8Array, special: boolean}>}>}
 */
export async function scorePrompt(api, model, ids, { top = 10, signal } = {}) {
  const params = { ...NOTHING_NEW, prompt_logprobs: top };
  const [run] = await traced(api, model, [{ prompt: ids, params }], signal);
  if (run.state !== "done") throw new ServerError(0, run.error ?? "The server ended the answer early.");
  return { logprobs: run.promptLogprobs.map(withNumbers), pieces: run.pieces };
}

/**
 * Returns, for each pair of prompt and answer, the log-probabilities of the answer's tokens, or the error.
 *
 * The tokens of both are joined as they are: they are never made of their common text.
 * @param {{prompt: number[], answer: number[]}[]} pairs none of which is empty
 * @returns {Promise<({logprobs: number[]} | {error: string})[]>}
 */
export async function scoreAnswers(api, model, pairs, { signal } = {}) {
  const found = [];
  for (let from = 0; from < pairs.length; from += TOGETHER) {
    const some = pairs.slice(from, from + TOGETHER);
    const requests = some.map(({ prompt, answer }) => ({
      prompt: [...prompt, ...answer],
      params: { ...NOTHING_NEW, prompt_logprobs: 0, prompt_logprobs_start: prompt.length },
    }));
    const runs = await traced(api, model, requests, signal);
    some.forEach(({ prompt }, place) => found.push(answerOf(runs[place], prompt.length)));
  }
  return found;
}

function answerOf(run, start) {
  if (run.state !== "done" || run.promptLogprobs === null) return { error: run.error ?? "The server gave no answer." };
  return { logprobs: run.promptLogprobs.slice(start).map(({ logprob }) => number(logprob)) };
}

/** Returns the tokens that follow a prompt greedily, and their pieces. */
export async function likeliestAnswer(api, model, ids, count, { signal } = {}) {
  const params = { max_tokens: count, temperature: 0, seed: 0 };
  const [run] = await traced(api, model, [{ prompt: ids, params }], signal);
  if (run.state !== "done") throw new ServerError(0, run.error ?? "The server ended the answer early.");
  return { ids: run.stream(0).tokens, pieces: run.pieces };
}

async function traced(api, model, requests, signal) {
  const runs = requests.map(({ params }) => new Run({ params }));
  const reader = new RunReader(runs);
  for await (const line of api.lines("/trace", { model, requests, candidates: 0 }, signal)) reader.feed(line);
  if (!reader.ended) reader.cut();
  return runs;
}

function withNumbers(entry) {
  if (entry === null) return null;
  return { ...entry, logprob: number(entry.logprob), top: entry.top.map(([token, logprob]) => [token, number(logprob)]) };
}
