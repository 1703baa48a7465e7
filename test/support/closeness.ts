// How tests say that two arrays are close: by the bound of the benches, with the worst element in
// the message. It does without vitest, because fuzzing and tests on other runtimes use it, too.

import { errorBound, type Precision } from "../../src/reference/bounds.ts";
import { worstElement } from "../../src/reference/index.ts";

/**
 * Fails with the worst element, its index and both values unless `actual` is within the bound of
 * its precision.
 */
export function expectClose(
  what: string,
  actual: ArrayLike<number>,
  reference: { f64: ArrayLike<number>; plain: ArrayLike<number> },
  shape: readonly number[],
  precision: Precision = "f32",
): void {
  const count = reference.f64.length;
  if (actual.length !== count)
    throw new Error(`${what}: ${actual.length} elements, expected ${count}`);
  for (let i = 0; i < count; i++) {
    if (Number.isNaN(reference.f64[i]))
      throw new Error(`${what}: the reference itself is NaN at element ${i}`);
  }
  const bound = errorBound(reference.f64, reference.plain, precision);
  const worst = worstElement(actual, reference.f64, shape);
  if (worst.error <= bound) return;
  throw new Error(
    `${what}: element [${worst.index}] of [${shape}] is ${worst.actual}, expected ${worst.expected}: off by ${worst.error.toExponential(2)}, allowed ${bound.toExponential(2)}`,
  );
}
