// From a problem of a multi-head layer's gradients to a plan.

import { check } from "../../errors.ts";
import type { Taken } from "../../given.ts";
import { checkDevice, settle } from "../../gpu/buffers.ts";
import { extentOf, type Tensor } from "../../gpu/tensor.ts";
import type { Operands } from "../../plan/operand.ts";
import { checkOverlap, memoryOf } from "../../plan/operand_checks.ts";
import type { ResolvedSpec } from "../../plan/specs.ts";
import { planTensors } from "../../plan/tensors.ts";
import type { Layer } from "../multi_head_parts.ts";
import { checkWeights, MultiHeadPlan } from "../multi_head_plan.ts";
import { weightTensors } from "../multi_head_sizes.ts";
import type { Given } from "../places.ts";
import { buildBackward } from "./build.ts";
import { BackwardParts } from "./parts.ts";
import type { MultiHeadBackwardBindings, MultiHeadBackwardProblem } from "./problem.ts";
import { type ResolvedMultiHeadBackward, resolveMultiHeadBackward } from "./resolve.ts";

/** Compiled gradients of a layer. Make one with {@link planMultiHeadAttentionBackward}. */
export type MultiHeadBackwardPlan = MultiHeadPlan<MultiHeadBackwardBindings>;

/** Compiles the gradients of a layer. Whatever fails, nothing is left allocated. */
export async function prepareMultiHeadBackward(
  forward: Layer,
  problem: Taken<MultiHeadBackwardProblem>,
) {
  const layer = { ...forward, label: `${forward.label} backward` };
  const { device, label } = layer;
  checkDevice(device);
  checkWeights(layer);
  const resolved = await resolveMultiHeadBackward(layer, problem);
  const operands = operandsOf(layer, problem, resolved);
  const parts = new BackwardParts(layer, resolved);
  try {
    const site = { parts, layer, problem: resolved.forward, backward: resolved };
    const built = await buildBackward(site);
    await settle(memoryOf(operands));
    const plan: MultiHeadBackwardPlan = MultiHeadPlan.make({
      layer,
      operands,
      parts: built,
      owned: parts.owned,
      checkApart: (given) => checkApart(label, operands, given),
    });
    return { plan, resolved };
  } catch (error) {
    await parts.discard();
    throw error;
  }
}

/** The operands that the caller binds, and the weights. */
function operandsOf(
  { device, label, weights }: Layer,
  problem: Taken<MultiHeadBackwardProblem>,
  { forward, dOutput, dLse, dWeights, ofLayer, ofOptions }: ResolvedMultiHeadBackward,
): Operands {
  const { operands } = planTensors(device, label, ({ add }) => {
    const some = (name: string, spec: ResolvedSpec | undefined, given: unknown) =>
      spec && add(name, spec, given);
    some("query", forward.query, problem.query);
    some("key", forward.key, problem.key);
    some("value", forward.value, problem.value);
    for (const { name, spec, given } of forward.masks) add(name, spec, given);
    some("dOutput", dOutput, problem.dOutput);
    some("dLse", dLse, problem.dLse);
    some("dWeights", dWeights, problem.dWeights);
    for (const [name, tensor] of weightTensors(weights)) add(name, tensor, tensor);
    for (const { name, spec, given } of [...ofLayer.values(), ...ofOptions.values()])
      add(name, spec, given, true);
  });
  return operands;
}

const isParameter = (name: string) => name.startsWith("parameters.");

/**
 * Throws FoveaError if an output shares its buffer with an input, or elements with another output.
 * The gradients of parameters may be views of one tensor: each is written by kernels that bind no
 * other.
 */
function checkApart(label: string, operands: Operands, given: Given): void {
  const parameters = [...given].filter(([name]) => isParameter(name));
  const others = [...given].filter(([name]) => !isParameter(name));
  checkOverlap(label, operands, new Map(others));
  for (const [index, [name, tensor]] of parameters.entries()) {
    checkOverlap(label, operands, new Map([...others, [name, tensor]]));
    for (const [other, earlier] of parameters.slice(0, index)) {
      check(
        !shareElements(tensor, earlier),
        "overlap",
        () => `${label}: ${name} and ${other} have elements in common.`,
      );
    }
  }
}

/** Whether two tensors have an element in common; strides that interleave may count as such. */
function shareElements(a: Tensor, b: Tensor): boolean {
  if (a.buffer !== b.buffer || a.size === 0 || b.size === 0) return false;
  const end = (one: Tensor) => one.offset + extentOf(one.shape, one.strides);
  if (end(a) <= b.offset || end(b) <= a.offset) return false;
  // Rows of a matrix that lie side by side in longer rows.
  const [stride, from, to] = [a, b]
    .map(rowOf)
    .reduce((one, other) => [
      one[0] === other[0] ? one[0] : 0,
      Math.max(one[1], other[1]),
      Math.min(one[2], other[2]),
    ]);
  return stride === 0 || from < to;
}

/** Elements from one row to the next, and the columns that a row takes; all if there are none. */
function rowOf({ shape, strides, offset }: Tensor): readonly [number, number, number] {
  const longest = Math.max(...strides);
  const inner = shape.map((size, axis) => (strides[axis] === longest ? 1 : size));
  const from = offset % longest;
  return [longest, from, from + extentOf(inner, strides)];
}
