// Says in words how a run stands and how its texts ended.

import { label } from "./spelling.js";

/** Returns how a run stands, in one line. */
export function standing(run) {
  if (run.state === "waiting") return "Waiting for the server …";
  if (run.state === "prefill") return prefill(run.progress);
  if (run.state === "running") return "Writing …";
  if (run.state === "cut") return "Cut: what came before is kept.";
  if (run.state === "failed") return "";
  return facts(run).join(" · ");
}

function prefill({ prompt, cached, computed }) {
  const from = cached > 0 ? `, ${count(cached)} of them from the cache` : "";
  return `Reading the prompt: ${count(computed)} of ${tokens(prompt)}${from} …`;
}

/** Returns facts about a run that has ended. */
function facts(run) {
  const cached = run.cachedTokens > 0 ? `, ${count(run.cachedTokens)} from the cache` : "";
  const told = [run.model, `prompt of ${tokens(run.promptTokenIds.length)}${cached}`];
  if (run.seed !== null) told.push(`seed ${run.seed}`);
  return [...told, ...run.warnings].filter((text) => text !== "");
}

/** Returns how a stream ended; "" while it runs. */
export function ending(run, stream) {
  if (stream.finishReason === null) return "";
  const score = stream.score === null ? "" : `, score ${stream.score.toFixed(4).replace("-", "−")}`;
  return `${tokens(stream.positions.length)}: ${reason(run, stream)}${score}`;
}

function reason(run, { finishReason, stopReason, error }) {
  if (finishReason === "length") return "it reached its longest length";
  if (finishReason === "stop" && typeof stopReason === "string") return `it met the stop string ${JSON.stringify(stopReason)}`;
  if (finishReason === "stop" && typeof stopReason === "number") return `it met the stop token ${label(stopReason, run.pieces)}`;
  if (finishReason === "stop") return "the model ended it";
  return error ?? finishReason;
}

function tokens(number) {
  return `${count(number)} token${number === 1 ? "" : "s"}`;
}

function count(number) {
  return number.toLocaleString("en");
}
