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
import type { Given } from "./places.ts";

interface PlanParts {
  readonly layer: Pick<Layer, "device" | "label">;
  readonly operands: Operands;
  readonly parts: readonly Part[];
  readonly owned: readonly Tensor[];
  /** Throws FoveaError if tensors of a run share memory. Default: if an output shares its buffer. */
  checkApart?(given: Given): void;
}

/**
 * Compiled multi-head attention. Make one with {@link MultiHeadAttention.plan}; encode it as often
 * as you like. It is not a `Plan` but owns one for each of its parts, and the memory between them.
 */
export class MultiHeadPlan<Bindings extends MultiHeadBindings = MultiHeadBindings> {
  /**
   * Bytes of memory between the kernels that the plan owns: projected q, k and v, the output of the
   * heads, and so on.
   */
  readonly workspaceBytes: number;
  readonly #parts: PlanParts;
  /** The names that the plan binds itself. The others are attention's. */
  readonly #names: ReadonlySet<string>;
  #destroyed = false;

  private constructor(parts: PlanParts) {
    const owned = parts.owned.reduce((total, { size, dtype }) => total + size * BYTES[dtype], 0);
    this.workspaceBytes = parts.parts.reduce(
      (total, { plan }) => total + (plan.workspaceBytes ?? 0),
      owned,
    );
    this.#parts = parts;
    this.#names = new Set([...parts.operands.keys()].map((path) => path.split(".")[0]));
  }

  /** @internal Use {@link MultiHeadAttention.plan}. */
  static make<Bindings extends MultiHeadBindings>(parts: PlanParts): MultiHeadPlan<Bindings> {
    return new MultiHeadPlan<Bindings>(parts);
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
  encode(target: EncodeTarget, bindings: Bindings = {} as Bindings): void {
    const { layer, operands, parts, checkApart } = this.#parts;
    const { device, label } = layer;
    checkTarget(label, target);
    check(!this.#destroyed, "destroyed", () => `${label}: the plan was destroyed.`);
    checkDevice(device);
    const given = new Map<string, Tensor>();
    for (const [name, operand] of operands) {
      const tensor = boundAt(bindings, name) ?? operand.fallback;
      checkOperand(`${label}: ${name}`, device, operand, tensor);
      given.set(name, tensor);
    }
    if (checkApart) checkApart(given);
    else checkOverlap(label, operands, given);
    const options = Object.fromEntries(
      Object.entries(bindings).filter(([name]) => !this.#names.has(name)),
    );
    const recordings = parts.map((part) => part.prepare(given, options));
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

/** The tensor that a caller binds under a name, which is a path: `parameters.query.weight`. */
function boundAt(bindings: object, path: string): Tensor | undefined {
  const member = (from: unknown, name: string) =>
    (from as Readonly<Record<string, unknown>> | undefined)?.[name];
  return path.split(".").reduce<unknown>(member, bindings) as Tensor | undefined;
}

/** Compiles a layer for a problem. Whatever fails, nothing is left allocated. */
export async function prepareMultiHead(layer: Layer, problem: MultiHeadProblem) {
  const { device, label, weights, sizes, zeroAttention } = layer;
  checkDevice(device);
  checkWeights(layer);
  const resolved = resolveMultiHead(label, problem, sizes, {
    learned: weights.biasK !== undefined,
    zero: zeroAttention,
  });
  const operands = operandsOf(layer, problem, resolved);
  const parts = new Parts(layer, resolved);
  try {
    const built = await buildParts({ parts, layer, problem: resolved });
    await settle(memoryOf(operands));
    const plan: MultiHeadPlan = MultiHeadPlan.make({
      layer,
      operands,
      parts: built,
      owned: parts.owned,
    });
    return { plan, resolved };
  } catch (error) {
    await parts.discard();
    throw error;
  }
}

/** Throws FoveaError if weights of the layer were destroyed, or belong to another device. */
export function checkWeights({ device, label, weights }: Layer): void {
  for (const [name, given] of weightTensors(weights)) {
    check(!given.destroyed, "destroyed", () => `${label}: ${name}: the tensor was destroyed.`);
    check(
      given.device === device,
      "device",
      () => `${label}: ${name} belongs to another GPUDevice than the layer.`,
    );
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
