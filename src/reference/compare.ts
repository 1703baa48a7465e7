// How far two results are apart, and where.

/** The element at which two arrays differ most. */
export interface WorstElement {
  /**
   * |actual - expected|; Infinity if exactly one of the two is not a number,
   * or infinities differ.
   */
  readonly error: number;
  /** Its index in `shape`. */
  readonly index: readonly number[];
  readonly actual: number;
  readonly expected: number;
}

/**
 * Finds the worst element. Both arrays are row-major of the same shape; equal infinities and two
 * NaNs are no error.
 */
export function worstElement(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  shape: readonly number[],
): WorstElement {
  let error = 0;
  let worst = 0;
  for (let element = 0; element < expected.length; element++) {
    const difference = distance(actual[element], expected[element]);
    if (difference > error) [error, worst] = [difference, element];
  }
  const index = shape.map(() => 0);
  for (let axis = shape.length - 1, rest = worst; axis >= 0; axis--) {
    index[axis] = rest % shape[axis];
    rest = Math.floor(rest / shape[axis]);
  }
  return { error, index, actual: actual[worst], expected: expected[worst] };
}

function distance(a: number, b: number): number {
  if (Object.is(a, b)) return 0;
  const difference = Math.abs(a - b);
  return Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
}

/** The largest finite magnitude. */
export function largest(values: ArrayLike<number>): number {
  let max = 0;
  for (let i = 0; i < values.length; i++) {
    const magnitude = Math.abs(values[i]);
    if (magnitude > max && magnitude !== Number.POSITIVE_INFINITY) max = magnitude;
  }
  return max;
}
