// Merging of partial results on the CPU. The merge kernel is measured against it.

import type { ReferenceResult } from "./attention.ts";
import type { ReferenceOptions } from "./options.ts";

/** Attention of the same queries over some of the keys, as {@link ReferenceResult}. */
export interface ReferencePartial {
  /** [rows, Dv] */
  readonly output: ArrayLike<number>;
  /** [rows]; -Infinity for a row without a key, whose output may then be anything. */
  readonly lse: ArrayLike<number>;
}

export interface ReferenceMergeOptions {
  readonly infinityIsEmpty?: boolean;
}

/** Tells whether a row with this LSE has no key. */
const emptyOf =
  ({ infinityIsEmpty = false }: ReferenceMergeOptions) =>
  (lse: number) =>
    lse === Number.NEGATIVE_INFINITY || (infinityIsEmpty && lse === Number.POSITIVE_INFINITY);

/**
 * Merges attention over disjoint sets of keys into attention over all of them:
 *
 *     m = max LSE_i,   w_i = exp(LSE_i - m),   O = sum w_i O_i / sum w_i,   LSE = m + ln sum w_i
 *
 * A row that has no key in any partial is 0, with LSE -Infinity. An LSE of NaN or +Infinity makes
 * the row NaN; with `infinityIsEmpty` an LSE of +Infinity stands for a row without a key, too.
 */
export function mergeAttention(
  partials: readonly ReferencePartial[],
  options: Pick<ReferenceOptions, "precision"> & ReferenceMergeOptions = {},
): Pick<ReferenceResult, "output" | "lse"> {
  const round = options.precision === "f32" ? Math.fround : (x: number) => x;
  const isEmpty = emptyOf(options);
  const [first] = partials;
  const rows = first.lse.length;
  const Dv = rows > 0 ? first.output.length / rows : 0;
  const output = new Float64Array(rows * Dv);
  const lse = new Float64Array(rows).fill(Number.NEGATIVE_INFINITY);
  for (let row = 0; row < rows; row++) {
    const seen = partials.filter((partial) => !isEmpty(partial.lse[row]));
    if (seen.length === 0) continue;
    const max = Math.max(...seen.map((partial) => partial.lse[row]));
    const out = output.subarray(row * Dv, (row + 1) * Dv);
    let sum = 0;
    for (const partial of seen) {
      const w = round(Math.exp(round(partial.lse[row] - max)));
      sum = round(sum + w);
      for (let d = 0; d < Dv; d++) out[d] = round(out[d] + round(w * partial.output[row * Dv + d]));
    }
    for (let d = 0; d < Dv; d++) out[d] = round(out[d] / sum);
    lse[row] = round(max + round(Math.log(sum)));
  }
  return { output, lse };
}

/**
 * The gradients of partial results, from those of the merged O and LSE:
 *
 *     dO_i = p_i dO,   dLSE_i = p_i (dO.O_i - dO.O + dLSE),   p_i = exp(LSE_i - LSE)
 *
 * They are 0 for a partial that has no key in a row, which is not read there.
 */
export function mergeAttentionBackward(
  partials: readonly ReferencePartial[],
  options: Pick<ReferenceOptions, "precision"> &
    ReferenceMergeOptions & {
      /** [rows, Dv] and [rows]. Default zeros. */
      readonly dOutput?: ArrayLike<number>;
      readonly dLse?: ArrayLike<number>;
    },
): { readonly dOutput: Float64Array; readonly dLse: Float64Array }[] {
  const { dOutput = [], dLse = [] } = options;
  const round = options.precision === "f32" ? Math.fround : (x: number) => x;
  const isEmpty = emptyOf(options);
  const merged = mergeAttention(partials, options);
  const rows = merged.lse.length;
  const Dv = rows > 0 ? merged.output.length / rows : 0;
  return partials.map(({ output, lse }) => {
    const dOutputs = new Float64Array(output.length);
    const dLses = new Float64Array(rows);
    for (let row = 0; row < rows; row++) {
      if (isEmpty(lse[row])) continue;
      const p = round(Math.exp(round(lse[row] - merged.lse[row])));
      let apart = 0;
      for (let at = row * Dv; at < (row + 1) * Dv; at++) {
        const dO = dOutput[at] ?? 0;
        apart = round(apart + round(dO * round(output[at] - merged.output[at])));
        dOutputs[at] = round(p * dO);
      }
      dLses[row] = round(p * round(apart + (dLse[row] ?? 0)));
    }
    return { dOutput: dOutputs, dLse: dLses };
  });
}
