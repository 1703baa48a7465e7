// Arrays that go into contests and come out of them.

/**
 * Makes something when it is asked for, and then keeps it: inputs of long cases take seconds and
 * gigabytes.
 */
export function once<T>(make: () => T): () => T {
  let made: { value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}

export const product = (sizes: readonly number[]) => sizes.reduce((all, size) => all * size, 1);

/** The tensors of a result, one after the other. */
export function joined(tensors: readonly ArrayLike<number>[]): ArrayLike<number> {
  if (tensors.length === 1) return tensors[0];
  const all = new Float32Array(tensors.reduce((count, { length }) => count + length, 0));
  let at = 0;
  for (const one of tensors) {
    all.set(one, at);
    at += one.length;
  }
  return all;
}

/** Copies [B, X, Y, D] into [B, Y, X, D]. */
export function swapped(
  values: ArrayLike<number>,
  B: number,
  X: number,
  Y: number,
  D: number,
): Float32Array<ArrayBuffer> {
  const result = new Float32Array(values.length);
  for (let b = 0; b < B; b++) {
    for (let x = 0; x < X; x++) {
      for (let y = 0; y < Y; y++) {
        for (let d = 0; d < D; d++)
          result[((b * Y + y) * X + x) * D + d] = values[((b * X + x) * Y + y) * D + d];
      }
    }
  }
  return result;
}
