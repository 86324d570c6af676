// Asks for two answers to one prompt, which are given together.

import { ServerError } from "./api.js";
import { Run, RunReader } from "./run.js";
import { newSeed } from "./runs.js";

const CANDIDATES = 10;

/** An answer that did not come; `place` is that of its setting. */
export class AnswerError extends Error {
  constructor(place, message) {
    super(message);
    this.place = place;
  }
}

/**
 * Returns the runs of two settings on one prompt, once both have ended. Each draws by a seed of its own. They are not
 * kept, so that no list of runs names them.
 *
 * Throws `AnswerError` where an answer fails or is cut, and what the request throws otherwise; the other one is dropped.
 * @param {import("./api.js").Api} api
 * @param {{prompt: string, chat: boolean, settings: {model: string, params: object}[]}} asked with `chat` the prompt is
 *   a message, which each model's template renders
 * @param {AbortSignal} signal
 */
export async function answerPair(api, { prompt, chat, settings }, signal) {
  const dropped = new AbortController();
  const both = AbortSignal.any([signal, dropped.signal]);
  try {
    return await Promise.all(settings.map((setting, place) => answer(api, { prompt, chat, setting, place }, both)));
  } catch (error) {
    dropped.abort();
    throw error;
  }
}

async function answer(api, { prompt, chat, setting: { model, params }, place }, signal) {
  const seeded = { ...params, seed: newSeed() };
  const messages = chat ? [{ role: "user", content: prompt }] : null;
  const run = new Run({ title: prompt, model, view: "vote", params: seeded, seed: seeded.seed, messages });
  const reader = new RunReader([run]);
  try {
    const asked = chat ? (await api.json("/tokenize", { model, messages }, signal)).tokens : prompt;
    const body = { model, candidates: CANDIDATES, texts: true, requests: [{ prompt: asked, params: seeded }] };
    for await (const line of api.lines("/trace", body, signal)) reader.feed(line);
  } catch (error) {
    throw error instanceof ServerError ? new AnswerError(place, error.message) : error;
  }
  if (!reader.ended) reader.cut();
  if (run.state !== "done") throw new AnswerError(place, run.error ?? "The server ended the answer early.");
  return run;
}
