// The buckets of T5's relative bias: one for each distance at first, then ranges whose widths grow
// logarithmically.

import { check, show } from "../errors.ts";
import { isLength, type OptionNames } from "../given.ts";
import { takeOptions } from "../options.ts";
import type { PerHead } from "../plan/specs.ts";

/** T5's bias by relative position (arXiv 1910.10683, section 2.1). */
export interface RelativeBias {
  /** [buckets, H] f32, added to the scores unscaled: a tensor, or numbers in that order. */
  readonly table: PerHead;
  /** Number of buckets. Needed if `table` is numbers; a tensor has it in its shape. */
  readonly buckets?: number;
  /**
   * Whether keys after the query have buckets of their own, half of all. Default true; give false
   * if the mask is causal.
   */
  readonly bidirectional?: boolean;
  /** Distance from which on all keys share the last bucket. Default 128. */
  readonly maxDistance?: number;
}

/** Buckets of one side of the query. */
export interface DistanceBuckets {
  /** The number of buckets of the side. */
  readonly side: number;
  /** Distances below `exact` have one bucket each. */
  readonly exact: number;
  /** The bucket of every distance up to `maxDistance`, and of all longer ones. */
  readonly behind: readonly number[];
}

/** Throws FoveaError("argument") if the number of buckets and the distance give no buckets. */
export function distanceBuckets(
  what: string,
  { bidirectional = true, maxDistance = 128 }: Pick<RelativeBias, "bidirectional" | "maxDistance">,
  buckets: number,
): DistanceBuckets {
  const side = bidirectional ? buckets / 2 : buckets;
  const exact = Math.floor(side / 2);
  check(
    Number.isInteger(side) && exact >= 1,
    "argument",
    () =>
      `${what} needs at least ${bidirectional ? "4 buckets, an even number" : "2 buckets"}, got ${buckets}.`,
  );
  check(
    Number.isInteger(maxDistance) && maxDistance > exact && maxDistance <= 2 ** 16,
    "argument",
    () =>
      `${what}.maxDistance must be a whole number above ${exact} and up to 65536, got ${maxDistance}.`,
  );
  // The quotient of two logarithms may come out a little low.
  const share = (r: number) => Math.log(r / exact) / Math.log(maxDistance / exact) + 1e-9;
  const bucket = (r: number) =>
    r < exact ? r : Math.min(side - 1, exact + Math.floor(share(r) * (side - exact)));
  return { side, exact, behind: Array.from({ length: maxDistance + 1 }, (_, r) => bucket(r)) };
}

/** Options of {@link t5Buckets}. */
export interface T5BucketOptions extends Pick<RelativeBias, "bidirectional" | "maxDistance"> {
  /** Number of buckets. Default 32. */
  readonly buckets?: number;
  /** Position of the first query. Default 0. */
  readonly queryOffset?: number;
}

/** The names of the options. */
const BUCKET_OPTIONS: OptionNames<T5BucketOptions> = {
  bidirectional: "boolean",
  maxDistance: "number",
  buckets: "number",
  queryOffset: "number",
};

/**
 * T5's bucket of every key for every query, by which a learned bias is looked up. The option
 * `relativeBias` of attention does so inside the kernel; this function is for biases in memory, and
 * for looking at buckets. Source: Exploring the Limits of Transfer Learning (arXiv 1910.10683),
 * section 2.1, and its code.
 *
 * @returns [M, N], row by row: the bucket of j - p; query i stands at p = i + queryOffset.
 * @throws FoveaError if the options give no buckets.
 *
 * @example
 * const values = new Float32Array(32); // of one head, learned
 * const bias = Float32Array.from(t5Buckets(128, 128), (bucket) => values[bucket]);
 */
export function t5Buckets(
  seqQ: number,
  seqKv: number,
  given: T5BucketOptions = {},
): Int32Array<ArrayBuffer> {
  const options = takeOptions("t5Buckets", given, BUCKET_OPTIONS);
  const { buckets = 32, bidirectional = true, queryOffset = 0 } = options;
  check(
    [seqQ, seqKv].every(isLength) && Number.isInteger(queryOffset),
    "argument",
    () =>
      `t5Buckets: queries, keys and queryOffset are whole numbers, got ${show(seqQ)}, ${show(seqKv)} and ${queryOffset}.`,
  );
  check(
    seqQ * seqKv < 2 ** 31,
    "limit",
    () =>
      `t5Buckets: ${seqQ} queries of ${seqKv} keys are too many for an array; option relativeBias needs no memory.`,
  );
  const { side, behind } = distanceBuckets("t5Buckets", options, buckets);
  const found = new Int32Array(seqQ * seqKv);
  for (let at = 0; at < found.length; at++) {
    const ahead = (at % seqKv) - Math.floor(at / seqKv) - queryOffset;
    const distance = bidirectional ? Math.abs(ahead) : Math.max(-ahead, 0);
    found[at] =
      behind[Math.min(distance, behind.length - 1)] + (bidirectional && ahead > 0 ? side : 0);
  }
  return found;
}
