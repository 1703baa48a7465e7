// Attention as plain loops on the CPU: what the kernels are measured against, and readable next to the formula.

import type { Layout, MaskOptions } from "../types.ts";

/** A 4-D tensor on the CPU. Strides and offset count elements; the default is dense, last axis fastest. */
export interface ReferenceTensor {
  readonly data: ArrayLike<number>;
  readonly shape: readonly number[];
  readonly strides?: readonly number[];
  readonly offset?: number;
}

export interface ReferenceOptions extends MaskOptions<ArrayLike<number>> {
  /** Axis order of q, k and v. The results are always [B, H, M, ...]. Default `"bhmd"`. */
  readonly layout?: Layout;
  /** Compute only these rows, numbered in [B, H, M]. Default all of them, in order. */
  readonly rows?: ArrayLike<number>;
  /**
   * `"f64"` (default) is the yardstick. `"f32"` rounds every operation to f32, as a plain GPU implementation without
   * fused multiply-adds would: the error that nobody can be blamed for.
   */
  readonly precision?: "f64" | "f32";
}

export interface ReferenceResult {
  /** [rows, Dv], by default [B, H, M, Dv]. A row without a key is 0. */
  readonly output: Float64Array;
  /** [rows], by default [B, H, M]: natural log of the sum of exp(score). -Infinity for a row without a key. */
  readonly lse: Float64Array;
}

/**
 * softmax(scale * Q K^T + mask) V with float64 arithmetic, two passes over the scores of each row.
 * Source: Attention Is All You Need (arXiv 1706.03762), equation 1.
 *
 * @param q [B, H, M, D]
 * @param k [B, Hkv, N, D], H a multiple of Hkv; query head h uses key head floor(h * Hkv / H)
 * @param v [B, Hkv, N, Dv]
 */
export function attention(
  q: ReferenceTensor,
  k: ReferenceTensor,
  v: ReferenceTensor,
  options: ReferenceOptions = {},
): ReferenceResult {
  const layout = options.layout ?? "bhmd";
  const [query, key, value] = [q, k, v].map((tensor) => toBhmd(tensor, layout));
  const [B, H, M, D] = query.shape;
  const [, kvHeads, N] = key.shape;
  const Dv = value.shape[3];
  const single = options.precision === "f32";
  const round = single ? Math.fround : (x: number) => x;
  const scale = round(options.scale ?? 1 / Math.sqrt(D));
  const rows = options.rows ?? Array.from({ length: B * H * M }, (_, row) => row);
  const output = new Float64Array(rows.length * Dv);
  const lse = new Float64Array(rows.length);
  const scores = new Float64Array(N);

  for (let row = 0; row < rows.length; row++) {
    const i = rows[row] % M;
    const h = Math.floor(rows[row] / M) % H;
    const b = Math.floor(rows[row] / (M * H));
    const kvHead = Math.floor(h / (H / kvHeads));
    const end = keyEnd(b, i, M, N, options);

    const qAt = at(query, b, h, i);
    let max = Number.NEGATIVE_INFINITY;
    for (let j = 0; j < end; j++) {
      const s = round(scale * dot(query, qAt, key, at(key, b, kvHead, j), D, single));
      scores[j] = s;
      if (s > max) max = s;
    }
    let sum = 0;
    const out = output.subarray(row * Dv, (row + 1) * Dv);
    for (let j = 0; j < end; j++) {
      const p = round(Math.exp(round(scores[j] - max)));
      sum = round(sum + p);
      accumulate(out, p, value, at(value, b, kvHead, j), single);
    }
    for (let d = 0; d < Dv; d++) out[d] = end > 0 ? round(out[d] / sum) : 0;
    lse[row] = end > 0 ? round(max + round(Math.log(sum))) : Number.NEGATIVE_INFINITY;
  }
  return { output, lse };
}

/** One past the last key that query i of batch entry b sees. */
function keyEnd(b: number, i: number, M: number, N: number, options: ReferenceOptions): number {
  const { causal = false, queryOffset, kvLengths } = options;
  const length = kvLengths ? Math.min(Math.max(kvLengths[b], 0), N) : N;
  if (!causal) return length;
  const aligned = causal === "top-left" ? 0 : length - M;
  const offset = typeof queryOffset === "number" ? queryOffset : (queryOffset?.[b] ?? aligned);
  return Math.min(Math.max(i + offset + 1, 0), length);
}

interface Strided {
  readonly data: ArrayLike<number>;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly offset: number;
}

function toBhmd(tensor: ReferenceTensor, layout: Layout): Strided {
  const { data, shape, offset = 0 } = tensor;
  const dense = shape.map((_, axis) => shape.slice(axis + 1).reduce((product, size) => product * size, 1));
  const strides = tensor.strides ?? dense;
  const order = layout === "bhmd" ? [0, 1, 2, 3] : [0, 2, 1, 3];
  return { data, shape: order.map((axis) => shape[axis]), strides: order.map((axis) => strides[axis]), offset };
}

const at = ({ strides, offset }: Strided, b: number, h: number, row: number) =>
  offset + b * strides[0] + h * strides[1] + row * strides[2];

// The two inner loops are written twice, because a rounding function called through a variable costs a factor of five.

function dot(a: Strided, aAt: number, b: Strided, bAt: number, length: number, single: boolean): number {
  const [x, y, dx, dy] = [a.data, b.data, a.strides[3], b.strides[3]];
  let sum = 0;
  if (single) {
    for (let d = 0; d < length; d++) sum = Math.fround(sum + Math.fround(x[aAt + d * dx] * y[bAt + d * dy]));
  } else {
    for (let d = 0; d < length; d++) sum += x[aAt + d * dx] * y[bAt + d * dy];
  }
  return sum;
}

function accumulate(out: Float64Array, p: number, v: Strided, vAt: number, single: boolean): void {
  const [x, dx] = [v.data, v.strides[3]];
  if (single) {
    for (let d = 0; d < out.length; d++) out[d] = Math.fround(out[d] + Math.fround(p * x[vAt + d * dx]));
  } else {
    for (let d = 0; d < out.length; d++) out[d] += p * x[vAt + d * dx];
  }
}
