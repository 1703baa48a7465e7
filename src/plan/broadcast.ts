// Masks and biases: tensors over the scores [B, H, M, N] in which any axis may be 1.

import { check, show } from "../errors.ts";
import { resolveSpec } from "../gpu/tensor.ts";
import type { TensorSpec } from "../types.ts";
import type { ResolvedSpec } from "./specs.ts";

/** The keys that a word of a bit mask holds. */
const BITS = 32;

/**
 * Gives the spec with four axes and with stride 0 along those of size 1. Throws
 * FoveaError("argument") if it doesn't broadcast to `scores`, or has the wrong dtype.
 */
export function resolveMemory(
  what: string,
  given: TensorSpec,
  scores: readonly number[],
  kind: "mask" | "bias",
): ResolvedSpec {
  check(
    typeof given === "object" && given !== null && Array.isArray(given.shape),
    "argument",
    () => `${what} must be a tensor, or { shape, strides?, offset?, dtype? }, got ${show(given)}.`,
  );
  const spec = resolveSpec(what, {
    ...given,
    dtype: given.dtype ?? (kind === "mask" ? "u8" : "f32"),
  });
  const dtypes = kind === "mask" ? ["u8", "u32"] : ["f32"];
  check(dtypes.includes(spec.dtype), "argument", () =>
    kind === "mask"
      ? `${what} must be u8 (a byte each, 0 for masked) or u32 (32 keys a word), got ${spec.dtype}.`
      : `${what} must be f32, got ${spec.dtype}.`,
  );
  const [b, h, m, n] = scores;
  const words = Math.ceil(n / BITS);
  const full = spec.dtype === "u32" ? [b, h, m, words] : [b, h, m, n];
  const missing = 4 - spec.shape.length;
  const fits = spec.shape.every((size, axis) => {
    const most = full[axis + missing];
    return size === most || (size === 1 && !(spec.dtype === "u32" && axis + missing === 3));
  });
  check(
    missing >= 0 && fits,
    "argument",
    () =>
      `${what} must broadcast to the scores [B, H, M, ${spec.dtype === "u32" ? "ceil(N / 32)" : "N"}] = [${full.join(", ")}], got [${spec.shape.join(", ")}].`,
  );
  const shape = [...new Array<number>(missing).fill(1), ...spec.shape];
  const strides = [...new Array<number>(missing).fill(0), ...spec.strides];
  return {
    ...spec,
    shape,
    strides: strides.map((stride, axis) => (shape[axis] === 1 ? 0 : stride)),
  };
}
