// Linear projections on the CPU. The matmul kernel is measured against them.

import { accumulate, dot } from "./inner.ts";
import type { ReferenceOptions, ReferenceTensor } from "./options.ts";
import { roundingOf } from "./rounding.ts";
import { at, broadcast, broadcastZeros, elements, rowAt, type Strided, sizeOf } from "./tensors.ts";

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
  const columns = w.shape[2];
  const y = new Float64Array(sizeOf(rows.shape.slice(0, 3)) * columns);
  eachRow(rows, (row, entry, head, m) => {
    const xAt = at(rows, entry, head, m);
    for (let n = 0; n < columns; n++) {
      const sum = dot(rows, xAt, w, at(w, entry, head, n), rows.shape[3], single);
      y[row * columns + n] = b ? round(sum + b.data[b.offset + n * b.strides[3]]) : sum;
    }
  });
  return y;
}

/**
 * The gradients of a projection:
 *
 *     dx = dy W,   dW = dy^T x,   dbias = the sum of the rows of dy
 *
 * with the sum over all rows of x that a weight serves.
 *
 * @param x See {@link project}, as for the weight
 * @param dOutput the gradient of y, row-major
 * @param options `precision: "f32"` rounds every operation to f32. Default `"f64"`.
 * @returns row-major, dX and dWeight of the shapes of x and weight, dBias [N]
 */
export function projectBackward(
  x: ReferenceTensor,
  weight: ReferenceTensor,
  dOutput: ArrayLike<number>,
  options: Pick<ReferenceOptions, "precision"> = {},
) {
  const { single, round } = roundingOf(options.precision);
  const rows = broadcast(x, 4);
  const w = broadcast(weight, 4);
  const columns = w.shape[2];
  const dX = broadcastZeros(x, 4);
  const dWeight = broadcastZeros(weight, 4);
  const dBias = new Float64Array(columns);
  eachRow(rows, (row, entry, head, m) => {
    const xAt = at(rows, entry, head, m);
    const dRow = rowAt(dX, entry, head, m);
    for (let n = 0; n < columns; n++) {
      const dy = dOutput[row * columns + n];
      accumulate(dRow, dy, w, at(w, entry, head, n), single);
      accumulate(rowAt(dWeight, entry, head, n), dy, rows, xAt, single);
      dBias[n] = round(dBias[n] + dy);
    }
  });
  return { dX: dX.data, dWeight: dWeight.data, dBias };
}

/**
 * The same for x some of whose rows nothing has used: a row of x is not read, and may hold
 * anything, if its row of dOutput is 0.
 */
export function projectUsedBackward(
  x: ReferenceTensor,
  weight: ReferenceTensor,
  dOutput: Float64Array,
  options?: Pick<ReferenceOptions, "precision">,
) {
  const columns = weight.shape[weight.shape.length - 2];
  const width = x.shape[x.shape.length - 1];
  const used = elements(x, x.shape);
  for (let row = 0; row < dOutput.length / columns; row++) {
    const unused = dOutput.subarray(row * columns, (row + 1) * columns).every((dy) => dy === 0);
    if (unused) used.fill(0, row * width, (row + 1) * width);
  }
  return projectBackward({ data: used, shape: x.shape }, weight, dOutput, options);
}

/** Visits all rows of a 4-D tensor, with their numbers and places. */
function eachRow(
  { shape: [batch, heads, length] }: Strided,
  visit: (row: number, entry: number, head: number, m: number) => void,
): void {
  for (let row = 0; row < batch * heads * length; row++)
    visit(row, Math.floor(row / (heads * length)), Math.floor(row / length) % heads, row % length);
}
