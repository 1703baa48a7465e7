// Whether a result is right: compared with the float64 reference, all of it or an even sample of
// its rows.

import { errorBound } from "../src/reference/bounds.ts";
import { attention as reference, type WorstElement, worstElement } from "../src/reference/index.ts";
import { type Dims, windowOf } from "./cost.ts";
import { toF16 } from "./half.ts";

/** Dense [B, H, rows, D] arrays of a problem. */
export interface Arrays {
  readonly q: ArrayLike<number>;
  readonly k: ArrayLike<number>;
  readonly v: ArrayLike<number>;
}

export interface Verdict {
  readonly correct: boolean;
  /** Largest error against float64, in the rows that were checked. */
  readonly maxError: number;
  readonly bound: number;
  readonly worst: WorstElement;
  /** Rows that were checked, of all. */
  readonly rows: number;
  readonly ofRows: number;
}

/**
 * Returns the rows to check: all, or as many as `maxFlops` pays for, spread evenly from the first
 * to the last.
 */
export function rowsToCheck({ B, H, M, N, D, Dv }: Dims, maxFlops: number): number[] {
  const all = B * H * M;
  const affordable = Math.max(2, Math.floor(maxFlops / (2 * Math.max(N, 1) * (D + Dv))));
  const count = Math.min(all, affordable);
  return Array.from({ length: count }, (_, i) =>
    count === all ? i : Math.round((i * (all - 1)) / (count - 1)),
  );
}

/** Compares an output, dense [B, H, M, Dv], with the reference. */
export function verify(
  dims: Dims,
  arrays: Arrays,
  output: ArrayLike<number>,
  maxFlops = 3e8,
): Verdict {
  const { B, H, Hkv, M, N, D, Dv, causal, kvLengths, similarity, dtype } = dims;
  const rows = rowsToCheck(dims, maxFlops);
  const options = {
    causal,
    rows,
    ...windowOf(dims),
    ...(kvLengths && { kvLengths }),
    ...(similarity && { similarity }),
  };
  const q = { data: arrays.q, shape: [B, H, M, D] };
  const k = { data: arrays.k, shape: [B, Hkv, N, D] };
  const v = { data: arrays.v, shape: [B, Hkv, N, Dv] };
  const f64 = reference(q, k, v, options).output;
  // With f16 storage any kernel may multiply in f16.
  const store = dtype && { store: toF16 };
  const plain = reference(q, k, v, { ...options, ...store, precision: "f32" }).output;
  const actual = new Float64Array(rows.length * Dv);
  rows.forEach((row, index) => {
    for (let d = 0; d < Dv; d++) actual[index * Dv + d] = output[row * Dv + d];
  });
  const found = worstElement(actual, f64, [rows.length, Dv]);
  const bound = errorBound(f64, plain, dtype ? "f16-products" : "f32");
  const row = rows[found.index[0]] ?? 0;
  const index = [Math.floor(row / (H * M)), Math.floor(row / M) % H, row % M, found.index[1]];
  const worst = { ...found, index };
  return {
    correct: found.error <= bound,
    maxError: found.error,
    bound,
    worst,
    rows: rows.length,
    ofRows: B * H * M,
  };
}
