// Rows that no entry uses, and what must never be read of them.

import type { Layout } from "../../src/index.ts";

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

/** Fills rows of all heads with NaN. `size` is in the order of the layout. */
export function poisonRows(
  data: Float32Array,
  size: readonly number[],
  layout: Layout,
  unused: readonly (readonly [batch: number, row: number])[],
): void {
  const [, second, third, D] = size;
  const heads = layout === "bhmd" ? second : third;
  for (const [batch, row] of unused) {
    for (let head = 0; head < heads; head++) {
      const [x, y] = layout === "bhmd" ? [head, row] : [row, head];
      const start = ((batch * second + x) * third + y) * D;
      data.fill(Number.NaN, start, start + D);
    }
  }
}
