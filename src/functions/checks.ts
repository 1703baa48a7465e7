// Checks of values that the ready functions capture.

import { check, show } from "../errors.ts";
import { denseStrides, Tensor } from "../gpu/tensor.ts";
import type { Dtype } from "../types.ts";

/** Gives a whole number from `least` up as an i32 that is small enough for sums of positions. */
export function whole(what: string, value: number, least: number): { i32: number } {
  check(
    Number.isInteger(value) && value >= least,
    "argument",
    () => `${what} must be a whole number from ${least} up, got ${show(value)}.`,
  );
  return { i32: Math.min(value, 2 ** 29) };
}

/**
 * Throws FoveaError unless `value` is a dense tensor with one of the dtypes and as many axes as one
 * of `shapes`.
 */
export function checkArray(
  what: string,
  given: Tensor,
  dtypes: readonly Dtype[],
  shapes: readonly string[],
): void {
  check(
    given instanceof Tensor,
    "argument",
    () => `${what} must be a Tensor; make one with tensor(). Got ${show(given)}.`,
  );
  const { dtype, shape, strides } = given;
  const ranks = shapes.map((text) => text.split(",").length);
  const dense = denseStrides(shape);
  check(
    dtypes.includes(dtype) &&
      ranks.includes(shape.length) &&
      shape.every((size, axis) => size <= 1 || strides[axis] === dense[axis]),
    "argument",
    () =>
      `${what} must be a dense tensor ${shapes.join(" or ")} of ${dtypes.join(" or ")}, got ${dtype} [${shape}] with strides [${strides}].`,
  );
}
