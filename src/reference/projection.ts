// Linear projections on the CPU. The matmul kernel is measured against them.

import { dot } from "./inner.ts";
import type { ReferenceOptions, ReferenceTensor } from "./options.ts";
import { roundingOf } from "./rounding.ts";
import { at, broadcast } from "./tensors.ts";

/**
 * y[..., n] = sum_k x[..., k] weight[n, k] + bias[n], row-major.
 *
 * @param x [..., K], up to three axes before K
 * @param weight [N, K], or a weight for each entry of the axes that x has before its rows; such an
 *   axis may be 1
 * @param bias [N]
 */
export function project(
  x: ReferenceTensor,
  weight: ReferenceTensor,
  bias?: ReferenceTensor,
  options: Pick<ReferenceOptions, "precision"> = {},
): Float64Array {
  const { single, round } = roundingOf(options.precision);
  const rows = broadcast(x, 4);
  const w = broadcast(weight, 4);
  const b = bias && broadcast(bias, 4);
  const [batch, heads, length, inner] = rows.shape;
  const columns = w.shape[2];
  const y = new Float64Array(batch * heads * length * columns);
  for (let row = 0; row < batch * heads * length; row++) {
    const entry = Math.floor(row / (heads * length));
    const head = Math.floor(row / length) % heads;
    const xAt = at(rows, entry, head, row % length);
    for (let n = 0; n < columns; n++) {
      const sum = dot(rows, xAt, w, at(w, entry, head, n), inner, single);
      y[row * columns + n] = b ? round(sum + b.data[b.offset + n * b.strides[3]]) : sum;
    }
  }
  return y;
}
