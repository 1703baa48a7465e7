// Rows that no entry uses, and what must never be read of them.

import type { Layout } from "../../src/index.ts";
import {
  attentionScores,
  type ReferenceOptions,
  type ReferenceTensor,
} from "../../src/reference/index.ts";
import { rowsOf } from "../../src/reference/rows.ts";

/** Returns the rows past the used lengths: batch index and row of the tensor. */
export function unusedRows(
  batch: number,
  rows: number,
  lengths: readonly number[] | undefined,
  cumulative: readonly number[] | undefined,
): (readonly [batch: number, row: number])[] {
  const entries = cumulative ? cumulative.length - 1 : batch;
  return Array.from({ length: entries }, (_, entry) => {
    const [begin, end] = cumulative ? [cumulative[entry], cumulative[entry + 1]] : [0, rows];
    const used = Math.min(lengths?.[entry] ?? end - begin, end - begin);
    const index = cumulative ? 0 : entry;
    return Array.from({ length: end - begin - used }, (_, i) => [index, begin + used + i] as const);
  }).flat();
}

/** Fills rows of heads, by default of all, with NaN. `size` is in the order of the layout. */
export function poisonRows(
  data: Float32Array,
  size: readonly number[],
  layout: Layout,
  unused: readonly (readonly [batch: number, row: number])[],
  heads?: readonly number[],
): void {
  const [, second, third, D] = size;
  const all = Array.from({ length: layout === "bhmd" ? second : third }, (_, head) => head);
  for (const [batch, row] of unused) {
    for (const head of heads ?? all) {
      const [x, y] = layout === "bhmd" ? [head, row] : [row, head];
      const start = ((batch * second + x) * third + y) * D;
      data.fill(Number.NaN, start, start + D);
    }
  }
}

/**
 * Returns the rows that have a part in a problem: queries that see a key, by their place among the
 * problem's rows, and keys that a query sees, by their number in [B, Hkv, N].
 */
export function rowsSeen(
  q: ReferenceTensor,
  k: ReferenceTensor,
  options: ReferenceOptions,
): { readonly queries: ReadonlySet<number>; readonly keys: ReadonlySet<number> } {
  const sizesOf = ([B, first, second]: readonly number[]) =>
    options.layout === "bmhd" ? [B, second, first] : [B, first, second];
  const [B, H, M] = sizesOf(q.shape);
  const [, Hkv, N] = sizesOf(k.shape);
  const scores = attentionScores(q, k, { ...options, stage: "scores" });
  const rows = rowsOf([B, H, M, N], options);
  const queries = new Set<number>();
  const keys = new Set<number>();
  for (let index = 0; index < rows.numbers.length; index++) {
    const row = rows.find(rows.numbers[index]);
    if (!row) continue;
    const first = (row.batch * Hkv + Math.floor((row.head * Hkv) / H)) * N + row.keyRow;
    for (let j = 0; j < rows.maxKeys; j++) {
      if (scores[index * rows.maxKeys + j] === Number.NEGATIVE_INFINITY) continue;
      queries.add(index);
      keys.add(first + j);
    }
  }
  return { queries, keys };
}
