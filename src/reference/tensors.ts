// Elements of tensors by their index, whatever the layout, the strides and the broadcast axes.

import type { Layout } from "../types.ts";
import type { ReferenceTensor } from "./options.ts";

export interface Strided {
  readonly data: ArrayLike<number>;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly offset: number;
}

const dense = (shape: readonly number[]) =>
  shape.map((_, axis) => shape.slice(axis + 1).reduce((product, size) => product * size, 1));

/** Gives q, k or v with its axes in the order batch, head, row, column. */
export function toBhmd(tensor: ReferenceTensor, layout: Layout): Strided {
  const { data, shape, offset = 0, strides = dense(shape) } = tensor;
  const order = layout === "bhmd" ? [0, 1, 2, 3] : [0, 2, 1, 3];
  return {
    data,
    shape: order.map((axis) => shape[axis]),
    strides: order.map((axis) => strides[axis]),
    offset,
  };
}

/**
 * Gives a tensor `rank` axes by adding first ones; along axes of size 1 every index finds the same
 * element.
 */
export function broadcast(tensor: ReferenceTensor, rank: number): Strided {
  const { data, shape, offset = 0, strides = dense(shape) } = tensor;
  const missing = Array.from({ length: rank - shape.length }, () => 1);
  const steps = strides.map((stride, axis) => (shape[axis] === 1 ? 0 : stride));
  return {
    data,
    shape: [...missing, ...shape],
    strides: [...missing.map(() => 0), ...steps],
    offset,
  };
}

/** The offset at which the row [b, h, row] of a 4-D tensor starts. */
export const at = ({ strides, offset }: Strided, b: number, h: number, row: number) =>
  offset + b * strides[0] + h * strides[1] + row * strides[2];

/** The elements of a tensor broadcast to a shape, in row-major order. */
export function elements(tensor: ReferenceTensor, shape: readonly number[]): Float64Array {
  const { data, strides, offset } = broadcast(tensor, shape.length);
  const values = new Float64Array(shape.reduce((product, size) => product * size, 1));
  for (let i = 0; i < values.length; i++) {
    let rest = i;
    let at = offset;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += (rest % shape[axis]) * strides[axis];
      rest = Math.floor(rest / shape[axis]);
    }
    values[i] = data[at];
  }
  return values;
}
