// Asks the server for the bytes of tokens that a run has not spelled.

import { fromHex } from "./hex.js";

/**
 * Adds the bytes of these tokens to a run's pieces, those that it lacks; the ids stand for them where the server does
 * not tell them.
 * @returns {Promise<boolean>} true if pieces were added
 */
export async function spellTokens(api, run, tokens) {
  const unknown = [...new Set(tokens)].filter((token) => !run.pieces.has(token));
  if (unknown.length === 0) return false;
  try {
    const body = { model: run.model, tokens: unknown, return_pieces: true };
    const { pieces, special } = await api.json("/detokenize", body);
    for (const [token, hex] of pieces) run.pieces.set(token, { bytes: fromHex(hex), special: special.includes(token) });
    return true;
  } catch {
    return false;
  }
}
