// How far a result of a kernel may be from float64, measured by the error of the precision on the
// same input.

import { largest, worstElement } from "./compare.ts";

/**
 * |kernel - f64| <= factor * max |plain - f64| + floor * max |f64|
 *
 * Here plain is the same formula with every operation rounded to the kernel's precision. The plain
 * evaluation has the error of the precision on this very input; online softmax adds a rounding for
 * each rescale and a different order of sums, hence the factor. The floor is for inputs on which
 * the plain evaluation happens to be exact.
 */
export const BOUNDS = {
  f32: { factor: 3, floor: 2e-6 },
  // For outputs of 16 bits, the plain evaluation is in f32 and rounded once, like the kernel's, and
  // rounding is nearly all of the error. FlashAttention's rule for half precision.
  f16: { factor: 2, floor: 2e-6 },
  bf16: { factor: 2, floor: 2e-6 },
  // For products in f16, the plain evaluation stores scores and probabilities in f16, but sums in
  // f32, so that only the kernel rounds sums. An evaluation that rounds its sums, too, is off by
  // several times as much.
  "f16-products": { factor: 3, floor: 2e-6 },
} as const;
export type Precision = keyof typeof BOUNDS;

/** What is as good as 0: f32 has few digits below it, and adapters may have none. */
const LEAST = 2 ** -100;

/** The largest error that is allowed, from a float64 result and a plain result of the precision. */
export function errorBound(
  f64: ArrayLike<number>,
  plain: ArrayLike<number>,
  precision: Precision,
): number {
  const { factor, floor } = BOUNDS[precision];
  const { error } = worstElement(plain, f64, [f64.length]);
  return factor * error + floor * largest(f64) + LEAST;
}
