// Lets tests of the reference write problems down, and read results, by eye.

import { expect } from "vitest";
import {
  attention,
  type ReferenceOptions,
  type ReferenceTensor,
} from "../../src/reference/index.ts";

export const tensor = (shape: number[], data: number[]): ReferenceTensor => ({ shape, data });
export const zeros = (...shape: number[]) =>
  tensor(shape, new Array(shape.reduce((a, b) => a * b, 1)).fill(0));

/** Expects the numbers to twelve digits, infinities and NaN exactly. */
export function close(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(actual).toHaveLength(expected.length);
  Array.from(expected).forEach((value, index) => {
    if (Number.isFinite(value)) expect(actual[index], `element ${index}`).toBeCloseTo(value, 12);
    else expect(actual[index], `element ${index}`).toBe(value);
  });
}

/**
 * Draws what each row sees, rows in [B, H, M]: `x` a key with weight, `.` one without. All scores
 * are equal, and so must be the weights of the keys seen.
 */
export function seen(
  sizes: { B?: number; H?: number; M: number; N: number },
  options: ReferenceOptions,
): string[] {
  const { B = 1, H = 1, M, N } = sizes;
  const oneHot = Array.from({ length: B * N * N }, (_, at) =>
    Math.floor(at / N) % N === at % N ? 1 : 0,
  );
  const { output, lse, rowMax } = attention(
    zeros(B, H, M, 1),
    zeros(B, 1, N, 1),
    tensor([B, 1, N, N], oneHot),
    options,
  );
  return Array.from({ length: B * H * M }, (_, row) => {
    const weights = Array.from(output.subarray(row * N, (row + 1) * N));
    const keys = weights.filter((weight) => weight !== 0);
    for (const weight of keys) expect(weight).toBeCloseTo(1 / keys.length, 12);
    expect(lse[row]).toBeCloseTo(Math.log(keys.length), 12);
    expect(rowMax[row]).toBe(keys.length > 0 ? 0 : Number.NEGATIVE_INFINITY);
    return weights.map((weight) => (weight === 0 ? "." : "x")).join("");
  });
}
