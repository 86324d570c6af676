// Says how many tokens a run may write.

/** The library's default, which a trace leaves out. `/v1/completions` has another one. */
export const DEFAULT_MAX_TOKENS = 256;

/** Returns the most tokens that a run may write; null where only the context limits it. */
export function mostTokens({ max_tokens: most = DEFAULT_MAX_TOKENS }) {
  return most;
}
