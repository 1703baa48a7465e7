// What the ready functions check before they capture it.

import { check, show } from "../errors.ts";
import { denseStrides, Tensor } from "../gpu/tensor.ts";
import type { Dtype } from "../types.ts";

/** A whole number from `least` up as an i32 that sums of positions can't overflow. */
export function whole(what: string, value: number, least: number): { i32: number } {
  check(
    Number.isInteger(value) && value >= least,
    "argument",
    () => `${what} must be a whole number from ${least} up, got ${show(value)}.`,
  );
  return { i32: Math.min(value, 2 ** 29) };
}

/**
 * Throws FoveaError unless it is a dense tensor of such a dtype and with as many axes as one of
 * `shapes`.
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
