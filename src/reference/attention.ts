// Attention as plain loops on the CPU, to read next to the formula. The kernels are measured
// against it.

import { dropoutFactor } from "./dropout.ts";
import { accumulate } from "./inner.ts";
import type { ReferenceOptions, ReferenceTensor } from "./options.ts";
import { scoresOf } from "./scores.ts";
import { at, toBhmd } from "./tensors.ts";

export interface ReferenceResult {
  /** [rows, Dv], by default [B, H, M, Dv]. A row without a key is 0. */
  readonly output: Float64Array;
  /**
   * [rows], by default [B, H, M]: natural log of the sum of exp(score), the sink's included. It is
   * the sink for a row without a key, or -Infinity if there is no sink. For a row that no entry
   * owns or uses it is -Infinity, sink or not.
   */
  readonly lse: Float64Array;
  /**
   * [rows], by default [B, H, M]: the largest score, without the sink. -Infinity for a row without
   * a key.
   */
  readonly rowMax: Float64Array;
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
  const value = toBhmd(v, options.layout ?? "bhmd");
  const Dv = value.shape[3];
  const problem = scoresOf(q, k, options);
  const { round, single } = problem.rounding;
  const { store = (x) => x } = options;
  const drop = dropper(options.dropout, round);
  const { numbers } = problem.rows;
  const output = new Float64Array(numbers.length * Dv);
  const lse = new Float64Array(numbers.length).fill(Number.NEGATIVE_INFINITY);
  const rowMax = new Float64Array(numbers.length).fill(Number.NEGATIVE_INFINITY);
  const scores = new Float64Array(problem.rows.maxKeys);
  const weights = new Float64Array(problem.rows.maxKeys);

  for (let index = 0; index < numbers.length; index++) {
    const row = problem.rows.find(numbers[index]);
    if (!row) continue;
    const { max, sum, lse: rowLse } = problem.softmax(row, scores, weights);
    const out = output.subarray(index * Dv, (index + 1) * Dv);
    const kvHead = problem.kvHead(row.head);
    for (let j = row.begin; j < row.end; j++) {
      // A key that is not seen is skipped and not multiplied by 0, because its value may be NaN.
      if (scores[j] === Number.NEGATIVE_INFINITY) continue;
      // A dropped key is seen, so a NaN in its value shows.
      const p = drop ? drop(weights[j], row.number, j) : store(weights[j]);
      accumulate(out, p, value, at(value, row.batch, kvHead, row.keyRow + j), single);
    }
    for (let d = 0; d < Dv; d++) out[d] = store(round(out[d] / sum));
    lse[index] = rowLse;
    rowMax[index] = max;
  }
  return { output, lse, rowMax };
}

/** Gives the function that turns a weight into the weight after dropout. */
function dropper(dropout: ReferenceOptions["dropout"], round: (x: number) => number) {
  if (!dropout) return undefined;
  const factor = dropoutFactor(dropout, round);
  return (p: number, row: number, key: number) => {
    const kept = factor(row, key);
    return kept === 0 ? 0 : round(p * kept);
  };
}
