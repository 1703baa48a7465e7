// How close a kernel must come to the float64 reference, in one place.

import { expect } from "vitest";
import { largest, worstElement } from "../../src/reference/index.ts";

/**
 * |kernel - f64| <= factor * max |plain - f64| + floor * max |f64|, where plain is the same formula with every operation
 * rounded to the kernel's precision. The plain evaluation says what the precision costs on this very input; online
 * softmax adds a rounding for each rescale and a different order of sums, hence the factor. The floor is for inputs on
 * which the plain evaluation happens to be exact.
 */
const BOUNDS = { f32: { factor: 3, floor: 2e-6 } } as const;

/** Fails with the worst element, its index and both values unless `actual` is within the bound of its precision. */
export function expectClose(
  what: string,
  actual: ArrayLike<number>,
  reference: { f64: ArrayLike<number>; plain: ArrayLike<number> },
  shape: readonly number[],
  precision: keyof typeof BOUNDS = "f32",
): void {
  const { factor, floor } = BOUNDS[precision];
  expect(actual, what).toHaveLength(reference.f64.length);
  for (let i = 0; i < reference.f64.length; i++) {
    if (Number.isNaN(reference.f64[i])) throw new Error(`${what}: the reference itself is NaN at element ${i}`);
  }
  const plain = worstElement(reference.plain, reference.f64, shape);
  const worst = worstElement(actual, reference.f64, shape);
  const bound = factor * plain.error + floor * largest(reference.f64);
  if (worst.error <= bound) return;
  expect.fail(
    `${what}: element [${worst.index}] of [${shape}] is ${worst.actual}, expected ${worst.expected}: off by ${worst.error.toExponential(2)}, allowed ${bound.toExponential(2)} (plain ${precision}: ${plain.error.toExponential(2)})`,
  );
}
