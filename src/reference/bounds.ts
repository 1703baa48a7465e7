// How far a result of a kernel may be from float64: measured by what the precision costs on the
// same input.

import { largest, worstElement } from "./compare.ts";

/**
 * |kernel - f64| <= factor * max |plain - f64| + floor * max |f64|
 *
 * where plain is the same formula with every operation rounded to the kernel's precision. The plain
 * evaluation says what the precision costs on this very input; online softmax adds a rounding for
 * each rescale and a different order of sums, hence the factor. The floor is for inputs on which
 * the plain evaluation happens to be exact.
 */
export const BOUNDS = {
  f32: { factor: 3, floor: 2e-6 },
  // Outputs of 16 bits: the plain evaluation is in f32 and rounded once, as the kernel's is, and
  // rounding is nearly all of the error. FlashAttention's rule for half precision.
  f16: { factor: 2, floor: 2e-6 },
  bf16: { factor: 2, floor: 2e-6 },
  // Products in f16, too: the plain evaluation stores scores and probabilities in f16, but sums in
  // f32, so that rounding sums falls to the kernel alone. An evaluation that rounds its sums, too,
  // is off by several times that.
  "f16-products": { factor: 3, floor: 2e-6 },
} as const;
export type Precision = keyof typeof BOUNDS;

/** The largest error that is right, given a float64 result and a plain one of the precision. */
export function errorBound(
  f64: ArrayLike<number>,
  plain: ArrayLike<number>,
  precision: Precision,
): number {
  const { factor, floor } = BOUNDS[precision];
  return factor * worstElement(plain, f64, [f64.length]).error + floor * largest(f64);
}
