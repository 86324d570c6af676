// Writes numbers for people.

/** Returns a probability as a percentage that never says 0 or 100 unless it is. */
export function percent(share) {
  if (Number.isNaN(share)) return "–";
  const value = 100 * share;
  if (value === 0 || value === 100) return `${value} %`;
  if (value > 99.9) return "> 99.9 %";
  if (value < 1e-4) return "< 0.0001 %";
  if (value < 0.1) return `${Number(value.toPrecision(2))} %`;
  return `${value.toFixed(value < 10 ? 2 : 1)} %`;
}

/** Returns a number of bits or nats. */
export function decimal(value, digits = 2) {
  if (value === Infinity) return "∞";
  // No minus before a zero.
  return (Math.abs(value) < 0.5 * 10 ** -digits ? 0 : value).toFixed(digits).replace("-", "−");
}

/** Returns a whole number with separators. */
export function count(value) {
  return value.toLocaleString("en");
}
