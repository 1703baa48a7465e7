// The tensors of linear attention: those that a caller binds, and those that a plan has to own.

import { check } from "../errors.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { resolveSpec, Tensor } from "../gpu/tensor.ts";
import { stateVec4s } from "../kernels/linear.ts";
import type { Operand } from "../plan/operand.ts";
import { checkOperand } from "../plan/operand_checks.ts";
import { bindingBase, checkBindingLimit, type PerBatch, type ResolvedSpec } from "../plan/specs.ts";
import type { LinearAttentionProblem, LinearTensor } from "./options.ts";
import { givenTensor, type ResolvedLinear } from "./problem.ts";

const WRITTEN: readonly string[] = [
  "output",
  "state",
  "normalizer",
  "presentState",
  "presentNormalizer",
];

/** The tensors that a caller binds. */
export function linearOperands(
  device: GPUDevice,
  problem: LinearAttentionProblem,
  { label, specs }: ResolvedLinear,
) {
  const operands = new Map<string, Operand>();
  for (const [name, spec] of specs) {
    checkBindingLimit(label, name, device, spec);
    const fallback = givenTensor(problem, name);
    const operand = {
      spec,
      base: bindingBase(device, spec),
      fallback,
      written: WRITTEN.includes(name),
    };
    if (fallback) checkOperand(`${label}: ${name}`, device, operand, fallback);
    operands.set(name, operand);
  }
  return operands;
}

/**
 * The operands with the plan's own: lengths given as numbers, states that nobody keeps, states of
 * chunks.
 */
export function withOwn(
  device: GPUDevice,
  problem: LinearAttentionProblem,
  resolved: ResolvedLinear,
  given: Map<string, Operand>,
  slots: number,
) {
  const { label, batch, states, headDim, vDim, normalized, stateShape, normalizerShape, chunked } =
    resolved;
  const lengths =
    problem.kvLengths === undefined
      ? undefined
      : resolveLengths(device, resolved, problem.kvLengths);
  if (lengths && !("values" in lengths)) given.set("kvLengths", lengths);
  const place = (inPlace: LinearTensor, after: LinearTensor) =>
    [inPlace, after].find((name) => given.has(name)) ?? `own ${inPlace}`;
  const names = {
    state: place("state", "presentState"),
    normalizer: place("normalizer", "presentNormalizer"),
  };
  const operands = new Map(given);
  const owned: Tensor[] = [];
  const own = (name: string, shape: readonly number[], values?: readonly number[]) => {
    const spec = resolveSpec(label, { shape, dtype: values ? "i32" : "f32" });
    checkBindingLimit(label, name, device, spec);
    const made = tensor(device, shape, {
      dtype: spec.dtype,
      label: `${label} ${name}`,
      ...(values && { data: values }),
    });
    owned.push(made);
    operands.set(name, { spec, base: 0, fallback: made, written: !values });
  };
  // Last, when nothing of the caller's is wrong: there is nobody yet to free them.
  try {
    if (lengths && "values" in lengths) own("kvLengths", [batch], lengths.values);
    if (!given.has(names.state)) own(names.state, stateShape);
    if (normalized && !given.has(names.normalizer)) own(names.normalizer, normalizerShape);
    if (normalized && !chunked) own("nextNormalizer", normalizerShape);
    if (chunked) own("workspace", [batch, states, slots, 4 * stateVec4s(headDim, vDim)]);
  } catch (error) {
    for (const made of owned) made.destroy();
    throw error;
  }
  return { operands, owned, names };
}

/** Lengths as a tensor of the caller's, or as numbers to write down once. */
function resolveLengths(
  device: GPUDevice,
  { label, batch, seqKv }: ResolvedLinear,
  lengths: PerBatch,
): Operand | { readonly values: readonly number[] } {
  if (lengths instanceof Tensor) {
    const { shape, strides, offset, dtype } = lengths;
    check(
      (dtype === "i32" || dtype === "u32") &&
        shape.length === 1 &&
        shape[0] === batch &&
        (batch <= 1 || strides[0] === 1),
      "argument",
      () =>
        `${label}: kvLengths must be dense i32 or u32 [${batch}], got ${dtype} [${shape}] with strides [${strides}].`,
    );
    const spec: ResolvedSpec = { shape, strides, offset, dtype };
    const operand = { spec, base: bindingBase(device, spec), fallback: lengths, written: false };
    checkOperand(`${label}: kvLengths`, device, operand, lengths);
    return operand;
  }
  check(
    Array.isArray(lengths) &&
      lengths.length === batch &&
      lengths.every((length) => Number.isInteger(length) && length >= 0 && length <= seqKv),
    "argument",
    () =>
      `${label}: kvLengths must be ${batch} whole numbers from 0 to ${seqKv}, or a tensor, got ${JSON.stringify(lengths)}.`,
  );
  return { values: lengths };
}
