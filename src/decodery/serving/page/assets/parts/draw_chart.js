// Shows a draw: what the noise added to each token's log-probability.

import { count, decimal } from "../core/figures.js";
import { element } from "../core/dom.js";
import { label } from "../core/spelling.js";

/**
 * Returns a chart of a draw: each bar goes from log p to log p + noise, and the largest sum,
 * which comes first, wins.
 * @param {{token: number, logprob: number, noise: number, taken: boolean}[]} tokens  Those that were left.
 * @param {number} kept  The number of tokens left, of which some may not be among `tokens`.
 */
export function drawChart(tokens, kept, pieces) {
  const sorted = [...tokens].sort((a, b) => b.logprob + b.noise - (a.logprob + a.noise));
  const sums = sorted.map(({ logprob, noise }) => logprob + noise);
  const least = Math.min(...sorted.map(({ logprob }, i) => Math.min(logprob, sums[i])));
  const span = Math.max(...sorted.map(({ logprob }, i) => Math.max(logprob, sums[i]))) - least || 1;
  const at = (value) => (value - least) / span;
  const rows = sorted.map(({ token, logprob, noise, taken }, i) => {
    const track = element("span", { class: noise < 0 ? "track down" : "track" });
    track.style.setProperty("--from", at(Math.min(logprob, sums[i])));
    track.style.setProperty("--to", at(Math.max(logprob, sums[i])));
    return element(
      "li",
      { class: taken ? "taken" : null },
      element("bdi", { class: "token-label", text: label(token, pieces) }),
      track,
      element("span", { class: "number terms", text: `${decimal(logprob)} ${noise < 0 ? "−" : "+"} ${decimal(Math.abs(noise))} =` }),
      element("span", { class: "number", text: decimal(sums[i]) }),
    );
  });
  const others = kept - tokens.length;
  return element(
    "div",
    { class: "draw" },
    element("ul", {}, ...rows),
    others > 0 ? element("p", { class: "dim small", text: `The sums of the ${count(others)} other tokens left are lower.` }) : null,
  );
}
