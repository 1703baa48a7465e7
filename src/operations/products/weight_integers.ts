// Weights of integers: how their rows are packed, and the checks of such a weight.

import { check, show } from "../../errors.ts";
import type { WeightIntegers } from "../../kernels/matmul.ts";
import { type IntegerBits, quantisedWords } from "../../kernels/quantised_rows.ts";
import { checkedSpec, type ResolvedSpec } from "../../plan/specs.ts";
import type { TensorSpec } from "../../types.ts";

/** Element types of quantised weights. */
export type IntegerDtype = "int8" | "int4";

/**
 * How integers stand for the floats of a weight: w ~ scale * q, symmetric around 0, q from -127 to
 * 127 (int8) or from -7 to 7 (int4), with a scale of max |w| / 127, or / 7, for each group of
 * channels.
 *
 * Rows [N, K] are then u32 [N, K / groupSize + K bits / 32]: the bits of the scales, one f32 for a
 * group, then the integers in two's complement, the first in the lowest bits. Caches of integers
 * have the same rows.
 */
export interface WeightQuantisation {
  readonly dtype: IntegerDtype;
  /** Channels of a row that share a scale: a multiple of 8 that divides K. */
  readonly groupSize: number;
}

export const INTEGER_BITS: Readonly<Record<IntegerDtype, IntegerBits>> = { int8: 8, int4: 4 };

/** Channels that share a scale, if nothing else is said. */
const GROUPS: Readonly<Record<IntegerDtype, number>> = { int8: 128, int4: 32 };

/**
 * The largest group up to `most` channels that rows of K channels can have; undefined if K is no
 * multiple of 8, so that they have none. Default 32 channels of int4, and 128 of int8.
 */
export function groupSizeFor(
  dtype: IntegerDtype,
  inner: number,
  most = GROUPS[dtype],
): number | undefined {
  for (let size = most - (most % 8); size > 0; size -= 8) if (inner % size === 0) return size;
  return undefined;
}

/** Throws FoveaError("argument") unless it says how integers stand for rows of `inner` channels. */
export function checkedIntegers(
  label: string,
  quantised: WeightQuantisation,
  inner?: number,
): WeightIntegers {
  check(
    typeof quantised === "object" && quantised !== null,
    "argument",
    () => `${label}: quantised must be { dtype, groupSize }, got ${show(quantised)}.`,
  );
  const { dtype, groupSize, ...others } = quantised;
  const [unknown] = Object.keys(others);
  check(
    unknown === undefined,
    "argument",
    () => `${label}: quantised has dtype and groupSize, and no ${show(unknown)}.`,
  );
  check(
    dtype !== undefined && Object.hasOwn(INTEGER_BITS, dtype),
    "argument",
    () => `${label}: quantised.dtype must be "int8" or "int4", got ${show(dtype)}.`,
  );
  const isGroup = Number.isInteger(groupSize) && groupSize > 0 && groupSize % 8 === 0;
  check(
    isGroup && (inner ?? groupSize) % groupSize === 0,
    "argument",
    () =>
      `${label}: quantised.groupSize must be a multiple of 8 that divides ${inner === undefined ? "the length of rows" : inner}, got ${show(groupSize)}.`,
  );
  return { bits: INTEGER_BITS[dtype], group: groupSize };
}

/** Words of a row of `inner` integers. */
export const wordsOf = (inner: number, { bits, group }: WeightIntegers): number =>
  quantisedWords(inner, bits, group);

/** How many integers rows of so many words hold; undefined if no rows have that many. */
export function integersIn(words: number, { bits, group }: WeightIntegers): number | undefined {
  const groups = words / (1 + (group * bits) / 32);
  return Number.isInteger(groups) ? groups * group : undefined;
}

/** A checked weight of words, whose last axis is the words of a row. */
export function checkedWords(label: string, given: TensorSpec): ResolvedSpec {
  const words = checkedSpec(label, "weight", given, ["u32"]);
  check(
    words.strides[words.strides.length - 1] === 1 || words.shape.includes(0),
    "argument",
    () =>
      `${label}: the words of a row of weight must lie side by side, got strides [${words.strides}].`,
  );
  return words;
}
