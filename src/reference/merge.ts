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
  options: Pick<ReferenceOptions, "precision"> & { readonly infinityIsEmpty?: boolean } = {},
): Pick<ReferenceResult, "output" | "lse"> {
  const round = options.precision === "f32" ? Math.fround : (x: number) => x;
  const empty = [
    Number.NEGATIVE_INFINITY,
    ...(options.infinityIsEmpty ? [Number.POSITIVE_INFINITY] : []),
  ];
  const [first] = partials;
  const rows = first.lse.length;
  const Dv = rows > 0 ? first.output.length / rows : 0;
  const output = new Float64Array(rows * Dv);
  const lse = new Float64Array(rows).fill(Number.NEGATIVE_INFINITY);
  for (let row = 0; row < rows; row++) {
    const seen = partials.filter(({ lse: { [row]: own } }) => !empty.includes(own));
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
