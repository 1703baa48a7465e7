// Compares results with what a vector expects.

import type { VectorTensor } from "./vector.ts";

/**
 * The element of a vector's outputs that is furthest off. Numbers that JSON does not have are
 * words: NaN, Infinity.
 */
export interface Worst {
  readonly output: number;
  readonly index: readonly number[];
  readonly got: number | string;
  readonly expected: number | string;
  /** |got - expected| in units of max(1, |expected|), as the tolerance is. */
  readonly error: number | string;
  readonly tolerance: number;
}

/**
 * The lowest numbers of float types. ONNX Runtime writes them for a hidden score, for which ONNX
 * has -Infinity.
 */
const LOWEST: Readonly<Record<string, number>> = {
  float32: -(2 - 2 ** -23) * 2 ** 127,
  float16: -65504,
};

/**
 * Returns |actual - expected| / max(1, |expected|): 0 if both are NaN or the same infinity, and
 * Infinity if one of them is.
 */
function errorOf(actual: number, expected: number, lowest: number | undefined): number {
  if (Object.is(actual, expected) || actual === expected) return 0;
  if (actual === Number.NEGATIVE_INFINITY && expected === lowest) return 0;
  const error = Math.abs(actual - expected) / Math.max(1, Math.abs(expected));
  return Number.isFinite(actual) && Number.isFinite(expected) ? error : Number.POSITIVE_INFINITY;
}

const inJson = (value: number) => (Number.isFinite(value) ? value : String(value));

/**
 * Returns the element that is furthest off in one output, or undefined if it has none. Both have
 * the same shape.
 *
 * @param skipped Flat ranges that are not compared
 */
export function worstOf(
  output: number,
  { dtype, shape, data }: VectorTensor,
  actual: ArrayLike<number>,
  tolerance: number,
  skipped: readonly (readonly [begin: number, end: number])[] = [],
): Worst | undefined {
  let at = 0;
  let error = -1;
  for (let i = 0; i < data.length; i++) {
    if (skipped.some(([begin, end]) => begin <= i && i < end)) continue;
    const here = errorOf(actual[i], data[i], LOWEST[dtype]);
    if (here > error) [at, error] = [i, here];
  }
  if (error < 0) return undefined;
  const index: number[] = [];
  for (let axis = shape.length - 1, rest = at; axis >= 0; axis--) {
    index.unshift(rest % shape[axis]);
    rest = Math.floor(rest / shape[axis]);
  }
  const [got, expected] = [actual[at], data[at]].map(inJson);
  return { output, index, got, expected, error: inJson(error), tolerance };
}

/** Whether an output passes by its worst element. */
export const isWithin = ({ error, tolerance }: Worst): boolean => Number(error) <= tolerance;

/** Says what is wrong with an output. */
export const describeWorst = ({ output, index, got, expected, tolerance }: Worst): string =>
  `output ${output} at [${index.join(", ")}] is ${got}, expected ${expected}, tolerance ${tolerance}`;
