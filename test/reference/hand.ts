// How tests of the reference write problems down and read results by eye.

import { expect } from "vitest";
import type { ReferenceTensor } from "../../src/reference/index.ts";

export const tensor = (shape: number[], data: number[]): ReferenceTensor => ({ shape, data });

/** Expects the numbers to twelve digits, infinities and NaN exactly. */
export function close(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(actual).toHaveLength(expected.length);
  Array.from(expected).forEach((value, index) => {
    if (Number.isFinite(value)) expect(actual[index], `element ${index}`).toBeCloseTo(value, 12);
    else expect(actual[index], `element ${index}`).toBe(value);
  });
}
