/** Returns a share as text, such as "12 %". */
export function percent(share) {
  if (share === 0) return "0 %";
  if (share === 1) return "100 %";
  if (share < 0.001) return "< 0.1 %";
  if (share > 0.999) return "> 99.9 %";
  return `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`;
}
