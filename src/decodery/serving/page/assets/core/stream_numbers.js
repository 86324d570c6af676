// Computes what one tells of a whole stream from its positions and times.

/**
 * @typedef {{tokens: number, logprob: number | null, surprise: number | null, speed: number | null, first: number | null}} Numbers
 *   `logprob` is that of all tokens under the model, `surprise` the mean in bits, `speed` the tokens a second after the
 *   first one, and `first` the seconds from the request to the first token; null where it is not known
 */

/** @returns {Numbers} */
export function numbersOf(run, stream) {
  const { positions } = stream;
  const logprobs = positions.map(logprobOf);
  const known = positions.length > 0 && logprobs.every((one) => one !== null);
  const logprob = known ? logprobs.reduce((sum, one) => sum + one, 0) : null;
  return {
    tokens: positions.length,
    logprob,
    surprise: known ? -logprob / Math.LN2 / positions.length : null,
    ...paceOf(run.times, positions.length),
  };
}

/** Returns the log-probability of a position's token under the model, or null. */
export function logprobOf({ logprob, choice }) {
  if (logprob !== null && logprob !== undefined) return logprob;
  return choice === null ? null : Math.log(choice.before);
}

function paceOf(times, count) {
  if (!times || times.prefilled == null) return { speed: null, first: null };
  const seconds = times.ended == null ? 0 : times.ended - times.prefilled;
  return { speed: seconds > 0 && count > 1 ? (count - 1) / seconds : null, first: times.prefilled - (times.queued ?? 0) };
}
