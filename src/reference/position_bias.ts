// Biases of scores on the CPU. The kernel of biases in memory is measured against them.

import { relativeBucket } from "./bucket.ts";
import type { ReferenceTensor } from "./options.ts";
import { roundingOf } from "./rounding.ts";
import { elements } from "./tensors.ts";

export interface ReferenceBiasOptions {
  /** [buckets, H], in place of the bias. */
  readonly table?: ReferenceTensor;
  /** Default true. */
  readonly bidirectional?: boolean;
  /** Default 128. */
  readonly maxDistance?: number;
  /** Position of the first query. Default 0. */
  readonly queryOffset?: number;
  /** Broadcasts to the shape. */
  readonly bias?: ReferenceTensor;
  /** Gates, which broadcast to [B, H, M, 1]. */
  readonly gates?: {
    readonly update: ReferenceTensor;
    readonly reset: ReferenceTensor;
    readonly scale: ReferenceTensor;
  };
  readonly precision?: "f64" | "f32";
}

/**
 * bias or table[bucket(j - p), h], times u (r w - 1) + 2 with the sigmoids u and r of the gates.
 * Sources: arXiv 1910.10683, section 2.1; arXiv 2110.13900, equations 2 to 5.
 *
 * @param shape [B, H, M, N], the shape of the result
 */
export function positionBias(
  shape: readonly number[],
  options: ReferenceBiasOptions,
): Float64Array {
  const {
    table,
    bias,
    gates,
    bidirectional = true,
    maxDistance = 128,
    queryOffset = 0,
    precision,
  } = options;
  const { round } = roundingOf(precision);
  const [, H, M, N] = shape;
  const values = bias
    ? elements(bias, shape)
    : new Float64Array(shape.reduce((product, size) => product * size, 1));
  const rows = [...shape.slice(0, 3), 1];
  const [update, reset, scale] = gates
    ? [gates.update, gates.reset, gates.scale].map((gate) => elements(gate, rows))
    : [[], [], []];
  const sigmoid = (x: number) => round(1 / round(1 + round(Math.exp(-x))));
  return values.map((value, at) => {
    const row = Math.floor(at / N);
    const distance = (at % N) - (row % M) - queryOffset;
    const bucket = table && relativeBucket(distance, table.shape[0], bidirectional, maxDistance);
    const plain = table ? table.data[(bucket as number) * H + (Math.floor(row / M) % H)] : value;
    if (!gates) return plain;
    const factor = round(
      round(sigmoid(update[row]) * round(round(sigmoid(reset[row]) * scale[row]) - 1)) + 2,
    );
    return round(factor * plain);
  });
}
