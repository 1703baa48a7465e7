// The number of a draw, by which a plan that is encoded again draws anew.

import { check } from "../errors.ts";
import { isLength } from "../given.ts";
import { checkedSpec, type ResolvedSpec } from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";

/**
 * Checks the number of a draw: a whole number from 0 up to 2^32 - 1, or a u32 or i32 tensor of one
 * element, [] or [1]. Throws FoveaError("argument") for anything else.
 */
export function drawStep(label: string, step: number | TensorSpec): ResolvedSpec | number {
  if (typeof step !== "number") {
    const spec = checkedSpec(label, "step", step, ["u32", "i32"]);
    check(
      spec.shape.length <= 1 && spec.shape.every((size) => size === 1),
      "argument",
      () => `${label}: step must be one number, [] or [1], got [${spec.shape.join(", ")}].`,
    );
    return spec;
  }
  check(
    isLength(step) && step < 2 ** 32,
    "argument",
    () => `${label}: step must be a whole number from 0 up to 2^32 - 1, got ${step}.`,
  );
  return step;
}
