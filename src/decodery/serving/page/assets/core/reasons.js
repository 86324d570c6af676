// Says why a slider changes nothing.

import { RESHAPED, isOff, reshape } from "./reshape.js";
import { stageLabel } from "./stages.js";

const NEUTRAL = Object.freeze({ temperature: 1, top_k: 0, top_p: 1, min_p: 0 });

/**
 * Returns, for each of `RESHAPED` that is on and changes nothing, the reason.
 * @param {import("./reshape.js").Shape} shape  What `reshape` returned with these parameters and this order.
 * @param {object} params
 * @param {readonly string[]} order
 * @returns {Map<string, string>}
 */
export function whyNothing(shape, params, order) {
  const found = new Map();
  for (const name of RESHAPED) {
    if (name !== "temperature" && !shape.drawn) {
      if (!isOff(name, params)) found.set(name, "temperature 0 takes the likeliest token, whatever is cut");
    } else if (!isOff(name, params) && shape.drawn) {
      const reason = reasonOf(name, shape, params, order);
      if (reason !== null) found.set(name, reason);
    }
  }
  return found;
}

function reasonOf(name, shape, params, order) {
  const { stages, distribution } = shape;
  const place = stages.findIndex((stage) => stage.name === name);
  const before = place === 0 ? distribution.size : stages[place - 1].kept;
  if (before <= 1) return `${cutter(stages.slice(0, place))} comes first: ${left(before)}`;
  if (name === "temperature") {
    if (shape.kept > 1) return null;
    return `${cutter(stages)} comes later: ${left(shape.kept)}, which any temperature gives 100 %`;
  }
  if (stages[place].kept === before) return KEEPS_ALL[name](before, params);
  const without = reshape(distribution, { ...params, [name]: NEUTRAL[name] }, order);
  if (without.kept !== shape.kept) return null;
  return `${cutter(stages.slice(place + 1))} comes later, and leaves the same ${candidates(shape.kept)}`;
}

const KEEPS_ALL = {
  top_k: (count) => `only ${candidates(count)} are left before it`,
  top_p: (count, { top_p: mass }) => `it takes all of the ${left(count)} to reach ${percent(mass)}`,
  min_p: (count, { min_p: share }) => `each of the ${left(count)} has at least ${percent(share)} of the best one's probability`,
};

/** Returns the last of these stages that cut something, by its name. */
function cutter(stages) {
  const place = stages.findLastIndex(({ kept }, i) => i > 0 && kept < stages[i - 1].kept);
  const found = place >= 0 ? stages[place] : stages.find(({ name }) => name !== "temperature");
  return found === undefined ? "a ban or a grammar" : stageLabel(found.name);
}

function candidates(count) {
  return `${count.toLocaleString("en")} ${count === 1 ? "candidate" : "candidates"}`;
}

function left(count) {
  return `${candidates(count)} left`;
}

function percent(share) {
  return `${Number((100 * share).toPrecision(3))} %`;
}
