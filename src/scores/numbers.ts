// Checks of numbers in options: one for all heads, one for each head, or one for each column.

import { check, show } from "../errors.ts";
import { Tensor } from "../gpu/tensor.ts";
import type { ListOrTensor, PerHead } from "../plan/specs.ts";

/** The largest f32. */
export const LARGEST = 3.4028234663852886e38;

/** @param largest The largest magnitude that is allowed */
export function checkNumbers(
  what: string,
  values: PerHead,
  shapes: readonly number[][],
  largest: number = LARGEST,
): asserts values is ListOrTensor {
  const expected = shapes.map((shape) => `[${shape.join(", ")}]`).join(" or ");
  const fits = (count: number) =>
    shapes.some((shape) => shape.reduce((product, size) => product * size, 1) === count);
  if (values instanceof Tensor) {
    const { shape, dtype } = values;
    check(
      dtype === "f32" &&
        shapes.some(
          (s) => s.length === shape.length && s.every((size, axis) => size === shape[axis]),
        ),
      "argument",
      () => `${what} must be an f32 tensor ${expected}, got ${dtype} [${shape.join(", ")}].`,
    );
    return;
  }
  check(
    Array.isArray(values) && fits(values.length),
    "argument",
    () =>
      `${what} must be a tensor or an array of numbers ${expected}, got ${Array.isArray(values) ? values.length : show(values)}.`,
  );
  const wrong = values.findIndex(
    (value) => !(typeof value === "number" && Math.abs(value) <= largest),
  );
  const bound = largest < LARGEST ? ` of at most ${largest}` : "";
  check(
    wrong < 0,
    "argument",
    () => `${what} must be finite numbers of f32${bound}, got ${show(values[wrong])} at ${wrong}.`,
  );
}

/** Repeats one number for all heads; numbers for each head stay as they are. */
export const perHead = (values: number | PerHead, heads: number): PerHead =>
  typeof values === "number" ? new Array<number>(heads).fill(values) : values;
