// Comparison of results of models in f32 with float64.

import { expect } from "vitest";

/** Each element within 1e-5 of the largest expected one. */
export function expectClose(got: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(got.length).toBe(expected.length);
  const largest = Math.max(...Array.from(expected, Math.abs));
  for (let at = 0; at < expected.length; at++)
    expect(Math.abs(got[at] - expected[at])).toBeLessThan(1e-5 * largest);
}
