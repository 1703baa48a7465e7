// The tensors of linear attention: those that a caller binds, and those that a plan has to own.

import { check } from "../errors.ts";
import type { Taken } from "../given.ts";
import { resolveSpec, Tensor, type TensorOptions } from "../gpu/tensor.ts";
import { stateVec4s } from "../kernels/linear.ts";
import type { Caller } from "../plan/operation.ts";
import { checkBindingLimit, type ListOrTensor } from "../plan/specs.ts";
import type { PlanTensors } from "../plan/tensors.ts";
import type { LinearAttentionProblem } from "./options.ts";
import type { ResolvedLinear } from "./problem.ts";
import { specialisation } from "./specialisation.ts";
import { statePlaces } from "./states.ts";
import { segmentsOf } from "./steps.ts";

const WRITTEN: readonly string[] = [
  "output",
  "state",
  "normalizer",
  "presentState",
  "presentNormalizer",
];

/**
 * Adds the tensors that a caller binds, and those that the plan owns: lengths given as numbers,
 * states that the caller doesn't keep, states of chunks.
 */
export function linearTensors(
  { add, own }: PlanTensors,
  resolved: ResolvedLinear,
  problem: Taken<LinearAttentionProblem>,
  caller: Caller,
): void {
  const { specs, batch, states, headDim, vDim } = resolved;
  const { normalized, stateShape, normalizerShape, chunked } = resolved;
  const { label, device } = caller;
  const { kvLengths } = problem;
  for (const [name, spec] of specs) add(name, spec, problem[name], WRITTEN.includes(name));
  const { slots } = segmentsOf(resolved, specialisation(resolved, caller));
  if (kvLengths !== undefined) checkLengths(label, resolved, kvLengths);
  if (kvLengths instanceof Tensor) add("kvLengths", kvLengths, kvLengths);
  const places = statePlaces(specs);
  const allocate = (name: string, shape: readonly number[], options: TensorOptions = {}) => {
    const { dtype } = options;
    checkBindingLimit(label, name, device, resolveSpec(label, { shape, ...(dtype && { dtype }) }));
    own(name, shape, options, dtype === undefined);
  };
  // Allocation comes last, after the caller's tensors were checked, because nothing would free the
  // memory yet.
  if (Array.isArray(kvLengths)) allocate("kvLengths", [batch], { dtype: "i32", data: kvLengths });
  if (places.state === "own state") allocate(places.state, stateShape);
  if (normalized && places.normalizer === "own normalizer")
    allocate(places.normalizer, normalizerShape);
  if (normalized && !chunked) allocate("nextNormalizer", normalizerShape);
  if (chunked) allocate("workspace", [batch, states, slots, 4 * stateVec4s(headDim, vDim)]);
}

/** Throws FoveaError unless the lengths are a fitting tensor or fitting numbers. */
export function checkLengths(
  label: string,
  { batch, seqKv }: Pick<ResolvedLinear, "batch" | "seqKv">,
  lengths: ListOrTensor,
): void {
  if (lengths instanceof Tensor) {
    const { shape, strides, dtype } = lengths;
    check(
      (dtype === "i32" || dtype === "u32") &&
        shape.length === 1 &&
        shape[0] === batch &&
        (batch <= 1 || strides[0] === 1),
      "argument",
      () =>
        `${label}: kvLengths must be dense i32 or u32 [${batch}], got ${dtype} [${shape}] with strides [${strides}].`,
    );
    return;
  }
  check(
    Array.isArray(lengths) &&
      lengths.length === batch &&
      lengths.every((length) => Number.isInteger(length) && length >= 0 && length <= seqKv),
    "argument",
    () =>
      `${label}: kvLengths must be ${batch} whole numbers from 0 to ${seqKv}, or a tensor, got ${JSON.stringify(lengths)}.`,
  );
}
