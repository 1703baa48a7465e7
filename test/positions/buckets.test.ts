// The buckets of T5's relative bias begin exactly where whole numbers say, not where a quotient of
// logarithms rounds to.

import { describe, expect, it } from "vitest";
import { t5Buckets } from "../../src/index.ts";

/**
 * Returns the bucket of a distance behind the query, by whole numbers only: r >= exact (most /
 * exact)^(k / n) for bucket exact + k.
 */
function bucketOf(r: number, side: number, most: number): number {
  const exact = Math.floor(side / 2);
  if (r < exact) return r;
  const n = side - exact;
  let bucket = exact;
  const reaches = (k: number) =>
    BigInt(r) ** BigInt(n) * BigInt(exact) ** BigInt(k) >=
    BigInt(exact) ** BigInt(n) * BigInt(most) ** BigInt(k);
  while (bucket < side - 1 && reaches(bucket + 1 - exact)) bucket++;
  return bucket;
}

describe("t5Buckets", () => {
  it.each([
    [32, 128],
    [16, 1024],
    [40, 1000],
    [8, 729],
    // In these cases the quotient of the logarithms comes out low.
    [16, 36],
    [20, 160],
    [12, 4096],
    [64, 2048],
  ])("of %d buckets up to distance %d", (buckets, maxDistance) => {
    const keys = maxDistance + 3;
    const ahead = t5Buckets(1, keys, { buckets, maxDistance });
    const behind = t5Buckets(1, keys, {
      buckets,
      maxDistance,
      queryOffset: keys - 1,
      bidirectional: false,
    });
    for (let r = 0; r < keys; r++) {
      const side = buckets / 2;
      expect(ahead[r], `${r} ahead`).toBe(bucketOf(r, side, maxDistance) + (r > 0 ? side : 0));
      expect(behind[keys - 1 - r], `${r} behind`).toBe(bucketOf(r, buckets, maxDistance));
    }
  });
});
