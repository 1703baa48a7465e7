// The buckets of T5's relative position bias.

/**
 * The bucket of a key `relative` = j - p positions after its query: small distances have one each,
 * larger ones share buckets whose widths grow with the distance, and all from `maxDistance` on
 * share the last.
 * Source: Exploring the Limits of Transfer Learning (arXiv 1910.10683), section 2.1.
 */
export function relativeBucket(
  relative: number,
  buckets: number,
  bidirectional: boolean,
  maxDistance: number,
): number {
  const count = bidirectional ? Math.floor(buckets / 2) : buckets;
  const base = bidirectional && relative > 0 ? count : 0;
  const distance = bidirectional ? Math.abs(relative) : Math.max(-relative, 0);
  const exact = Math.floor(count / 2);
  if (distance < exact || count === 1) return base + Math.min(distance, count - 1);
  const share = Math.log(distance / exact) / Math.log(maxDistance / exact);
  // Quotients of logs that are whole numbers can come out just below: 8 buckets, distance 12 of 36,
  // are 1.9999999999999996.
  return base + Math.min(count - 1, exact + Math.floor(share * (count - exact) + 1e-9));
}
