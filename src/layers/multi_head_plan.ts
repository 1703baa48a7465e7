// The plan of multi-head attention: its parts (multi_head_parts.ts), and the tensors that a caller
// binds.

import { check } from "../errors.ts";
import { checkDevice, settle } from "../gpu/buffers.ts";
import { BYTES } from "../gpu/shapes.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { Operands } from "../plan/operand.ts";
import { checkOperand, checkOverlap, memoryOf } from "../plan/operand_checks.ts";
import type { ResolvedSpec } from "../plan/specs.ts";
import { checkTarget, type EncodeTarget, recordInto } from "../plan/target.ts";
import { planTensors } from "../plan/tensors.ts";
import { buildParts } from "./multi_head_build.ts";
import { type Layer, type Part, Parts } from "./multi_head_parts.ts";
import type {
  MultiHeadBindings,
  MultiHeadProblem,
  ResolvedMultiHead,
} from "./multi_head_problem.ts";
import { resolveMultiHead } from "./multi_head_problem.ts";
import { weightTensors } from "./multi_head_sizes.ts";

interface PlanParts {
  readonly layer: Layer;
  readonly operands: Operands;
  readonly parts: readonly Part[];
  readonly owned: readonly Tensor[];
}

/**
 * Compiled multi-head attention. Make one with {@link MultiHeadAttention.plan}; encode it as often
 * as you like. It is not a `Plan` but owns one for each of its parts, and the memory between them.
 */
export class MultiHeadPlan {
  /**
   * Bytes of memory between the kernels that the plan owns: projected q, k and v, the output of the
   * heads, and so on.
   */
  readonly workspaceBytes: number;
  readonly #parts: PlanParts;
  #destroyed = false;

  private constructor(parts: PlanParts) {
    const owned = parts.owned.reduce((total, { size, dtype }) => total + size * BYTES[dtype], 0);
    this.workspaceBytes = parts.parts.reduce(
      (total, { plan }) => total + (plan.workspaceBytes ?? 0),
      owned,
    );
    this.#parts = parts;
  }

  /** @internal Use {@link MultiHeadAttention.plan}. */
  static make(parts: PlanParts): MultiHeadPlan {
    return new MultiHeadPlan(parts);
  }

  /**
   * Records the layer into a compute pass, or into a pass of its own on a command encoder.
   * Allocates no GPU memory and submits nothing. In a caller's pass it sets the pipeline and bind
   * group 0. A plan has one set of memory between its kernels, so its runs follow one another.
   *
   * Throws FoveaError, with nothing recorded, if a tensor does not fit the plan, was destroyed or
   * belongs to another device, or if an output shares its buffer with an input.
   *
   * @example
   * const pass = encoder.beginComputePass();
   * plan.encode(pass, { query, output });
   * pass.end();
   */
  encode(target: EncodeTarget, bindings: MultiHeadBindings = {}): void {
    const { layer, operands, parts } = this.#parts;
    const { device, label } = layer;
    checkTarget(label, target);
    check(!this.#destroyed, "destroyed", () => `${label}: the plan was destroyed.`);
    checkDevice(device);
    const given = new Map<string, Tensor>();
    for (const [name, operand] of operands) {
      const tensor = (bindings as Record<string, Tensor | undefined>)[name] ?? operand.fallback;
      checkOperand(`${label}: ${name}`, device, operand, tensor);
      given.set(name, tensor);
    }
    checkOverlap(label, operands, given);
    const recordings = parts.map((part) => part.prepare(given, bindings));
    recordInto(target, label, (pass) => {
      for (const recording of recordings) recording?.(pass);
    });
  }

  /** Frees the plan's memory. Work that was submitted before still runs. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    for (const { plan } of this.#parts.parts) plan.destroy();
    for (const owned of this.#parts.owned) owned.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }
}

/** Compiles a layer for a problem. Whatever fails, nothing is left allocated. */
export async function prepareMultiHead(layer: Layer, problem: MultiHeadProblem) {
  const { device, label, weights, sizes, zeroAttention } = layer;
  checkDevice(device);
  for (const [name, given] of weightTensors(weights)) {
    check(!given.destroyed, "destroyed", () => `${label}: ${name}: the tensor was destroyed.`);
    check(
      given.device === device,
      "device",
      () => `${label}: ${name} belongs to another GPUDevice than the layer.`,
    );
  }
  const resolved = resolveMultiHead(label, problem, sizes, {
    learned: weights.biasK !== undefined,
    zero: zeroAttention,
  });
  const operands = operandsOf(layer, problem, resolved);
  const parts = new Parts(layer, resolved);
  try {
    const built = await buildParts({ parts, layer, problem: resolved });
    await settle(memoryOf(operands));
    const plan = MultiHeadPlan.make({ layer, operands, parts: built, owned: parts.owned });
    return { plan, resolved };
  } catch (error) {
    await parts.discard();
    throw error;
  }
}

/** The operands that the caller binds. */
function operandsOf(
  { device, label }: Layer,
  problem: MultiHeadProblem,
  resolved: ResolvedMultiHead,
) {
  const { operands } = planTensors(device, label, ({ add }) => {
    const some = (name: string, spec: ResolvedSpec | undefined, given: unknown, written = false) =>
      spec && add(name, spec, given, written);
    some("query", resolved.query, problem.query);
    some("key", resolved.key, problem.key);
    some("value", resolved.value, problem.value);
    for (const { name, spec, given } of resolved.masks) add(name, spec, given);
    some("output", resolved.output, problem.output, true);
    some("lse", resolved.lse, problem.lse, true);
    some("weightsOutput", resolved.weights, problem.weightsOutput, true);
  });
  return operands;
}
