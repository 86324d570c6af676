// Reads votes from a file that somebody gives. Nothing in the file is trusted before it is checked.

import { faultOf } from "./check_schema.js";
import { checkValues, ImportError, shown } from "./import_run.js";
import { VOTE_SCHEMA, voteOf } from "./votes.js";

export const MOST_BYTES = 20_000_000;

/**
 * Returns the votes of a file that the page has saved. Throws `ImportError` with the line of a fault.
 * @param {File} file
 */
export async function readVotes(file) {
  if (file.size > MOST_BYTES) throw new ImportError(`The file is larger than ${MOST_BYTES / 1e6} MB.`);
  const lines = (await file.text()).split("\n").map((line, i) => [i + 1, line.trim()]);
  const votes = lines.filter(([, line]) => line !== "").map(([number, line]) => voteOfLine(number, line));
  if (votes.length === 0) throw new ImportError("The file has no votes.");
  return votes;
}

/**
 * Returns the votes of a list that the browser has kept, and how many others there are, which are no votes. Throws where
 * it is no list.
 */
export function keptVotes(text) {
  const plain = JSON.parse(text);
  if (!Array.isArray(plain)) throw new ImportError("These are no votes.");
  const votes = plain.filter((vote) => faultOf(vote, VOTE_SCHEMA) === null).map(voteOf);
  return { votes, damaged: plain.length - votes.length };
}

function voteOfLine(number, line) {
  let plain;
  try {
    plain = JSON.parse(line);
  } catch {
    throw new ImportError(`The file has no votes: line ${number} is not JSON.`);
  }
  checkValues(plain);
  return checked(number, plain);
}

function checked(number, plain) {
  const fault = faultOf(plain, VOTE_SCHEMA);
  if (fault !== null) throw new ImportError(`Line ${number} is no vote of this page: ${shown(String(fault))}.`);
  return voteOf(plain);
}
