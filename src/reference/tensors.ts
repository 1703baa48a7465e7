// Elements of tensors by their index, whatever the layout, the strides and the broadcast axes.

import type { Layout } from "../types.ts";
import type { ReferenceTensor } from "./options.ts";

export interface Strided {
  readonly data: ArrayLike<number>;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly offset: number;
}

/** The number of elements of a shape. */
export const sizeOf = (shape: readonly number[]) =>
  shape.reduce((product, size) => product * size, 1);

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

/** A tensor with its last two axes exchanged. */
export function transposed(tensor: ReferenceTensor): ReferenceTensor {
  const { data, shape, offset = 0, strides = dense(shape) } = tensor;
  const exchange = (list: readonly number[]) => [
    ...list.slice(0, -2),
    list[list.length - 1],
    list[list.length - 2],
  ];
  return { data, shape: exchange(shape), strides: exchange(strides), offset };
}

/** Where the row [b, h, row] of a 4-D tensor starts. */
export const at = ({ strides, offset }: Strided, b: number, h: number, row: number) =>
  offset + b * strides[0] + h * strides[1] + row * strides[2];

/** Calls `visit` with each index of a shape, row-major, and with where a tensor has its element. */
function eachElement(
  tensor: ReferenceTensor,
  shape: readonly number[],
  visit: (index: number, at: number) => void,
): void {
  const { strides, offset } = broadcast(tensor, shape.length);
  const count = sizeOf(shape);
  for (let i = 0; i < count; i++) {
    let rest = i;
    let at = offset;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at += (rest % shape[axis]) * strides[axis];
      rest = Math.floor(rest / shape[axis]);
    }
    visit(i, at);
  }
}

/** The elements of a tensor broadcast to a shape, in row-major order. */
export function elements(tensor: ReferenceTensor, shape: readonly number[]): Float64Array {
  const values = new Float64Array(sizeOf(shape));
  eachElement(tensor, shape, (index, at) => {
    values[index] = tensor.data[at];
  });
  return values;
}

/**
 * The gradient of a tensor that {@link elements} broadcast: that of the elements, summed over the
 * axes along which they are the same one. Row-major, of the tensor's shape.
 */
export function summed(
  gradient: ArrayLike<number>,
  shape: readonly number[],
  tensor: ReferenceTensor,
  round = (x: number) => x,
): Float64Array {
  const sums = new Float64Array(sizeOf(tensor.shape));
  eachElement({ data: sums, shape: tensor.shape }, shape, (index, at) => {
    sums[at] = round(sums[at] + gradient[index]);
  });
  return sums;
}

/** A dense tensor that can be written to: a gradient. */
export interface Gradient extends Strided {
  readonly data: Float64Array;
}

/** Zeros of a tensor's shape. */
export function zerosLike({ shape }: { readonly shape: readonly number[] }): Gradient {
  return { data: new Float64Array(sizeOf(shape)), shape, strides: dense(shape), offset: 0 };
}

/** Zeros of a tensor's shape, broadcast as the tensor is: what is added along an axis of 1 sums. */
export function broadcastZeros({ shape }: ReferenceTensor, rank: number): Gradient {
  const zeros = zerosLike({ shape });
  return { ...broadcast(zeros, rank), data: zeros.data };
}

/** The row [b, h, row] of a 4-D gradient. */
export function rowAt(tensor: Gradient, b: number, h: number, row: number): Float64Array {
  const start = at(tensor, b, h, row);
  return tensor.data.subarray(start, start + tensor.shape[3]);
}
