// The plan of linear attention: compiled kernels, their uniforms and the tensors that they bind.

import { check } from "../errors.ts";
import { checkDevice } from "../gpu/buffers.ts";
import type { CompiledKernel } from "../gpu/pipelines.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { LINEAR_PARAMS } from "../kernels/linear.ts";
import type { Operand } from "../plan/operand.ts";
import { checkOperand, checkOverlap, checkUsed, tieResults } from "../plan/operand_checks.ts";
import { bindingRange } from "../plan/specs.ts";
import { checkTarget, type EncodeTarget, recordInto } from "../plan/target.ts";
import type { KernelSource } from "../types.ts";
import type { LinearTensor } from "./options.ts";
import type { LinearStep } from "./steps.ts";

/**
 * Memory for one run of a plan of linear attention: tensors that look as the plan was told. Those
 * that it was made with are the default.
 */
export type LinearAttentionBindings = { readonly [Name in LinearTensor | "kvLengths"]?: Tensor };

interface PlanParts {
  readonly device: GPUDevice;
  readonly label: string;
  readonly kernel: string;
  /** The tensors by the caller's names, and the plan's own. */
  readonly operands: ReadonlyMap<string, Operand>;
  /** What the caller may bind. */
  readonly bindable: ReadonlySet<string>;
  readonly groups: readonly {
    source: KernelSource;
    compiled: CompiledKernel;
    names: LinearStep["names"];
  }[];
  readonly dispatches: readonly { group: number; x: number; y: number; paramsOffset: number }[];
  readonly params: GPUBuffer;
  readonly owned: readonly Tensor[];
}

/**
 * Compiled linear attention. Make one with {@link planLinearAttention}; encode it as often as you
 * like.
 */
export class LinearAttentionPlan {
  /**
   * What runs: `"linear chunked"`, all tokens at once, or `"linear recurrent"`, one after the
   * other.
   */
  readonly kernel: string;
  /**
   * Bytes of scratch memory that the plan owns for its runs, states that the caller does not keep
   * included.
   */
  readonly workspaceBytes: number;
  readonly #parts: PlanParts;
  readonly #bound = new WeakMap<
    Tensor,
    { tensors: readonly Tensor[]; groups: readonly GPUBindGroup[] }
  >();
  #destroyed = false;

  private constructor(parts: PlanParts) {
    this.kernel = parts.kernel;
    this.workspaceBytes = parts.owned.reduce((bytes, { size }) => bytes + 4 * size, 0);
    this.#parts = parts;
  }

  /** @internal Use {@link planLinearAttention}. */
  static make(parts: PlanParts): LinearAttentionPlan {
    return new LinearAttentionPlan(parts);
  }

  /**
   * Records the attention into a compute pass, or into a pass of its own on a command encoder.
   * Allocates no GPU memory and submits nothing. In a caller's pass it sets the pipeline and bind
   * group 0.
   *
   * Throws FoveaError, with nothing recorded, if a tensor does not fit the plan, was destroyed or
   * belongs to another device, or if what is written shares its buffer with what is read; a state
   * in place is one tensor, and may be.
   *
   * @example
   * const decode = await planLinearAttention(device, {
   *   q,
   *   k,
   *   v,
   *   updateRule: "linear",
   *   state: { shape: [1, 8, 64, 64] },
   * });
   * decode.encode(encoder, { output, state: tensor(device, [1, 8, 64, 64]) });
   */
  encode(target: EncodeTarget, bindings: LinearAttentionBindings = {}): void {
    const { device, label, dispatches } = this.#parts;
    checkTarget(label, target);
    check(!this.#destroyed, "destroyed", () => `${label}: the plan was destroyed.`);
    checkDevice(device);
    const groups = this.#bindGroups(bindings ?? {});
    recordInto(
      target,
      label,
      dispatches.length === 0 ? undefined : (pass) => this.#record(pass, groups),
    );
  }

  /** Frees the plan's own buffers. Work that was submitted before still runs. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#parts.params.destroy();
    for (const owned of this.#parts.owned) owned.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  #record(pass: GPUComputePassEncoder, groups: readonly GPUBindGroup[]): void {
    for (const { group, x, y, paramsOffset } of this.#parts.dispatches) {
      pass.setPipeline(this.#parts.groups[group].compiled.pipeline);
      pass.setBindGroup(0, groups[group], [paramsOffset]);
      pass.dispatchWorkgroups(x, y);
    }
  }

  /**
   * The bind groups for these tensors: the last ones of the same output, if the other tensors are
   * the same too.
   */
  #bindGroups(bindings: LinearAttentionBindings): readonly GPUBindGroup[] {
    const { device, label, operands, bindable, groups, params } = this.#parts;
    const tensors = new Map<string, Tensor>();
    checkUsed(label, bindable, bindings);
    for (const [name, operand] of operands) {
      const given = (bindable.has(name) && bindings[name as LinearTensor]) || operand.fallback;
      checkOperand(`${label}: ${name}`, device, operand, given);
      tensors.set(name, given);
    }
    checkOverlap(label, operands, tensors);
    tieResults(operands, tensors);
    const list = [...tensors.values()];
    const output = tensors.get("output") as Tensor;
    const known = this.#bound.get(output);
    if (known?.tensors.every((used, index) => used === list[index])) return known.groups;

    const made = groups.map(({ source, compiled, names }) => {
      const entries = source.bindings.map(({ binding, name, type }): GPUBindGroupEntry => {
        const bound = type === "uniform" ? undefined : tensors.get(names[name] ?? name);
        // With no keys there is no byte of k and v to bind; the params stand in for them, unread.
        if (!bound?.size)
          return { binding, resource: { buffer: params, size: LINEAR_PARAMS.bytes } };
        return { binding, resource: { buffer: bound.buffer, ...bindingRange(bound) } };
      });
      return device.createBindGroup({ label, layout: compiled.layout, entries });
    });
    this.#bound.set(output, { tensors: list, groups: made });
    return made;
  }
}
