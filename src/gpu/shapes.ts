// Shapes and strides: how many elements there are, and where they lie.

import type { Dtype } from "../types.ts";

/** Bytes of an element. */
export const BYTES: Readonly<Record<Dtype, number>> = {
  f32: 4,
  f16: 2,
  bf16: 2,
  u32: 4,
  i32: 4,
  u8: 1,
};

/** Elements of a shape. */
export const countOf = (shape: readonly number[]): number =>
  shape.includes(0) ? 0 : shape.reduce((product, size) => product * size, 1);

/** The number of elements from the first one to one past the last one, gaps included. */
export function extentOf(shape: readonly number[], strides: readonly number[]): number {
  if (shape.includes(0)) return 0;
  return shape.reduce((extent, size, axis) => extent + (size - 1) * strides[axis], 1);
}

/** The strides of a dense tensor, last axis fastest. */
export function denseStrides(shape: readonly number[]): number[] {
  const strides = shape.map(() => 1);
  for (let axis = shape.length - 2; axis >= 0; axis--)
    strides[axis] = strides[axis + 1] * Math.max(1, shape[axis + 1]);
  return strides;
}

/** Whether the elements lie one after the other in row-major order. */
export function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  const dense = denseStrides(shape);
  return shape.every((size, axis) => size <= 1 || strides[axis] === dense[axis]);
}
