// Attention as plain loops on the CPU: what the kernels are measured against, and readable next to the formula.

import { accumulate, dot } from "./inner.ts";
import type { ReferenceOptions, ReferenceTensor } from "./options.ts";
import { at, toBhmd } from "./tensors.ts";

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
