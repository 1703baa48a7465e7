// Rows of a table by their numbers, as plain loops; and dropout of elements.

import { dropoutKeeps } from "./dropout.ts";
import type { ReferenceTensor } from "./options.ts";
import { roundingOf } from "./rounding.ts";

export interface ReferenceEmbeddingOptions {
  /** Default 1. */
  readonly scale?: number;
  /** A row that gets no gradient. Default: none. */
  readonly paddingId?: number;
  /** The arithmetic. Default `"f64"`. */
  readonly precision?: "f64" | "f32";
}

/**
 * scale * weight[ids]; zeros for ids that are no rows.
 *
 * @param weight [V, E], dense
 * @returns [..., E]
 */
export function embedding(
  { data, shape }: ReferenceTensor,
  ids: ArrayLike<number>,
  { scale = 1, precision }: ReferenceEmbeddingOptions = {},
): Float64Array {
  const [V, E] = shape;
  const { round } = roundingOf(precision);
  return Float64Array.from({ length: ids.length * E }, (_, i) => {
    const id = ids[Math.floor(i / E)];
    return id >= 0 && id < V ? round(scale * data[id * E + (i % E)]) : 0;
  });
}

/**
 * The gradient of {@link embedding} by its table: each row gets scale times the sum of dOutput over
 * the places of its id.
 *
 * @param dOutput [..., E], row-major
 * @returns [V, E]
 */
export function embeddingBackward(
  { shape }: Pick<ReferenceTensor, "shape">,
  ids: ArrayLike<number>,
  dOutput: ArrayLike<number>,
  { scale = 1, paddingId, precision }: ReferenceEmbeddingOptions = {},
): Float64Array {
  const [V, E] = shape;
  const { round } = roundingOf(precision);
  const dWeight = new Float64Array(V * E);
  for (let at = 0; at < ids.length; at++) {
    const id = ids[at];
    if (!(id >= 0 && id < V) || id === paddingId) continue;
    for (let d = 0; d < E; d++)
      dWeight[id * E + d] = round(dWeight[id * E + d] + dOutput[at * E + d]);
  }
  return dWeight.map((sum) => round(scale * sum));
}

/**
 * x / (1 - p) where element i, in row-major order, is kept by {@link dropoutKeeps} of i and the
 * step, or by a mask; 0 elsewhere.
 */
export function dropout(
  x: ArrayLike<number>,
  options: { readonly p: number; readonly seed?: number; readonly step?: number } & {
    readonly keepMask?: ArrayLike<number>;
  },
): Float64Array {
  const { p, seed = 0, step = 0, keepMask } = options;
  const keeps = dropoutKeeps(seed, p);
  const factor = p < 1 ? 1 / (1 - p) : 0;
  return Float64Array.from(x, (value, i) => {
    const kept = keepMask ? keepMask[i] !== 0 : keeps(i, step);
    return kept && factor > 0 ? value * factor : 0;
  });
}
