// Masks and biases in memory: tensors over the scores.

import { Tensor } from "../gpu/tensor.ts";
import { resolveMemory } from "../plan/broadcast.ts";
import type { Operands } from "../plan/operand.ts";
import type { DescribedProblem, Descriptor } from "./descriptor.ts";

/** Describes `mask`: a byte for each score, or a bit. */
export const MASK: Descriptor = (problem) => {
  const operand = overScores("mask", problem);
  if (!operand) return undefined;
  const { dtype } = operand.spec;
  return {
    keeps: "nothing",
    slots: { maskTensor: dtype === "u8" ? "bytes" : "bits" },
    params: addressesOf("mask"),
    operand,
    word: `mask ${dtype}`,
  };
};

/** Describes `bias`. */
export const BIAS: Descriptor = (problem) => {
  const operand = overScores("bias", problem);
  if (!operand) return undefined;
  return { keeps: "nothing", slots: { bias: true }, params: addressesOf("bias"), operand };
};

/** The tensor that a problem has under this name. */
function overScores(name: "mask" | "bias", { label, options, sizes }: DescribedProblem) {
  const given = options[name];
  if (given === undefined) return undefined;
  const { batch, heads, seqQ, seqKv } = sizes;
  const spec = resolveMemory(`${label}: ${name}`, given, [batch, heads, seqQ, seqKv], name);
  return { name, spec, fallback: given instanceof Tensor ? given : undefined };
}

/** The params of a mask or bias. */
const addressesOf =
  <Name extends "mask" | "bias">(name: Name) =>
  (operands: Operands) => {
    const operand = operands.get(name);
    const [b = 0, h = 0, m = 0, n = 0] = operand?.spec.strides ?? [];
    return {
      [`${name}_base`]: operand?.base ?? 0,
      [`${name}_stride_b`]: b,
      [`${name}_stride_h`]: h,
      [`${name}_stride_m`]: m,
      [`${name}_stride_n`]: n,
    } as Record<`${Name}_base` | `${Name}_stride_${"b" | "h" | "m" | "n"}`, number>;
  };
