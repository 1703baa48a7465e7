// The two inner loops of attention. Each is written twice, because a rounding function called
// through a variable costs a factor of five.

import type { Strided } from "./tensors.ts";

export function dot(
  a: Strided,
  aAt: number,
  b: Strided,
  bAt: number,
  length: number,
  single: boolean,
): number {
  const x = a.data;
  const y = b.data;
  const dx = a.strides[3];
  const dy = b.strides[3];
  let sum = 0;
  if (single) {
    for (let d = 0; d < length; d++)
      sum = Math.fround(sum + Math.fround(x[aAt + d * dx] * y[bAt + d * dy]));
  } else {
    for (let d = 0; d < length; d++) sum += x[aAt + d * dx] * y[bAt + d * dy];
  }
  return sum;
}

export function accumulate(
  out: Float64Array,
  p: number,
  v: Strided,
  vAt: number,
  single: boolean,
): void {
  const x = v.data;
  const dx = v.strides[3];
  if (single) {
    for (let d = 0; d < out.length; d++)
      out[d] = Math.fround(out[d] + Math.fround(p * x[vAt + d * dx]));
  } else {
    for (let d = 0; d < out.length; d++) out[d] += p * x[vAt + d * dx];
  }
}
