// The buckets of T5's relative bias: exact up to a distance, then as wide as the logarithm says.

import { check } from "../errors.ts";
import type { RelativeBias } from "./options.ts";

/** Buckets of one side of the query. */
export interface DistanceBuckets {
  /** Their number. */
  readonly side: number;
  /** Distances below it have buckets of their own. */
  readonly exact: number;
  /** The bucket of every distance up to `maxDistance`, from which on all are alike. */
  readonly behind: readonly number[];
}

/** Throws FoveaError("argument") for a number of buckets or a distance that make none. */
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
    () => `${what} needs at least ${bidirectional ? "4 buckets, an even number" : "2 buckets"}, got ${buckets}.`,
  );
  check(
    Number.isInteger(maxDistance) && maxDistance > exact && maxDistance <= 2 ** 16,
    "argument",
    () => `${what}.maxDistance must be a whole number above ${exact} and up to 65536, got ${maxDistance}.`,
  );
  // The quotient of two logarithms may come out a little low.
  const share = (r: number) => Math.log(r / exact) / Math.log(maxDistance / exact) + 1e-9;
  const bucket = (r: number) => (r < exact ? r : Math.min(side - 1, exact + Math.floor(share(r) * (side - exact))));
  return { side, exact, behind: Array.from({ length: maxDistance + 1 }, (_, r) => bucket(r)) };
}
