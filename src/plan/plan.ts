// A plan: a problem, its compiled kernels and their uniforms. Encoding a plan is synchronous and
// touches nothing but the caller's pass.

import { check } from "../errors.ts";
import { checkDevice } from "../gpu/buffers.ts";
import type { CompiledKernel } from "../gpu/pipelines.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { KernelSource } from "../types.ts";
import { type Operands, OWN } from "./operand.ts";
import { bindableOf, checkOperand, checkOverlap, checkUsed, tieResults } from "./operand_checks.ts";
import { bindingRange } from "./specs.ts";
import { checkTarget, type EncodeTarget, type Recording, recordInto } from "./target.ts";
import type { Dispatch } from "./work.ts";

/** The plan's names for the shader's bindings, if the two differ. */
const OPERAND_NAMES: Readonly<Record<string, string>> = {
  o: "output",
  row_max: "rowMax",
  mask_tensor: "mask",
  kv_state: "kvState",
};

/** A stage that is ready to run. */
export interface CompiledStage {
  readonly source: KernelSource;
  /** The names of operands that the kernel binds under other names than attention does. */
  readonly names?: Readonly<Record<string, string>>;
  readonly compiled: CompiledKernel;
  readonly dispatches: readonly Dispatch[];
  /** Bytes of the struct of its uniform. */
  readonly uniformBytes: number;
  /** The index of an earlier stage that binds the same tensors to the same kernel. */
  readonly boundLike?: number | undefined;
}

interface PlanParts<Bindings> {
  readonly device: GPUDevice;
  readonly label: string;
  readonly operands: Operands;
  readonly stages: readonly CompiledStage[];
  readonly params: GPUBuffer;
  /** Offsets of captured numbers in the params, by the names of their bindings. */
  readonly numbers: ReadonlyMap<string, number>;
  /** Tensors that the plan owns. */
  readonly owned: readonly Tensor[];
  readonly hooks: PlanHooks<Bindings>;
}

/** What an operation does with its bindings. */
export interface PlanHooks<Bindings> {
  /** The names that a caller may bind; `others` are names of members that aren't tensors. */
  readonly bindable: ReadonlySet<string>;
  readonly others?: readonly string[];
  /** The tensor that the caller binds for an operand. */
  boundBy(bindings: Bindings, name: string): Tensor | undefined;
  /** Throws FoveaError for bindings that the operands know nothing of. */
  check?(bindings: Bindings): void;
  /** Throws FoveaError for what forbids a run now; gives what is recorded before the stages. */
  before?(bindings: Bindings): Recording | undefined;
  /**
   * What the plan tells of itself. Default: the stage that has our names of its bindings, or the
   * last one; and the size of the workspace.
   */
  readonly kernel?: string;
  readonly workspaceBytes?: number;
}

/**
 * A compiled problem. Its `plan...` function makes it, such as {@link planAttention}; encode it as
 * often as you like.
 */
export class Plan<Bindings extends object> {
  /** Kernel and variant that the tile table chose: `forward 64x32`. */
  readonly kernel: string;
  /**
   * Bytes of scratch memory that the plan owns for its runs: of split keys, and of keys that are
   * prepared for many queries.
   */
  readonly workspaceBytes: number;
  /**
   * Dispatches of all kernels of a run. A kernel has several if its work would exceed
   * `maxDispatchFlops`.
   */
  readonly dispatchCount: number;
  readonly #parts: PlanParts<Bindings>;
  readonly #hooks: PlanHooks<Bindings>;
  readonly #groups = new WeakMap<
    Tensor,
    { tensors: readonly Tensor[]; groups: readonly GPUBindGroup[] }
  >();
  #destroyed = false;

  private constructor(parts: PlanParts<Bindings>) {
    const { stages, operands, hooks } = parts;
    this.kernel =
      hooks.kernel ?? (stages.find(({ names }) => !names) ?? stages.at(-1))?.source.label ?? "";
    this.workspaceBytes =
      hooks.workspaceBytes ?? 4 * (operands.get("workspace")?.fallback?.size ?? 0);
    this.dispatchCount = stages.reduce((count, { dispatches }) => count + dispatches.length, 0);
    this.#parts = parts;
    this.#hooks = hooks;
  }

  /** @internal Use the `plan...` function of the operation. */
  static make<Bindings extends object>(parts: PlanParts<Bindings>): Plan<Bindings> {
    return new Plan(parts);
  }

  /**
   * Records the operation into a compute pass, or into a pass of its own on a command encoder.
   * Allocates no GPU memory and submits nothing. In a caller's pass it sets the pipeline and bind
   * group 0.
   *
   * Throws FoveaError, with nothing recorded, if a tensor does not fit the plan, was destroyed or
   * belongs to another device, or if an output shares its buffer with an input.
   *
   * @example
   * const pass = encoder.beginComputePass();
   * plan.encode(pass, { q, k, v, output });
   * pass.end();
   */
  encode(target: EncodeTarget, bindings?: Bindings): void {
    checkTarget(this.#parts.label, target);
    recordInto(target, this.#parts.label, this.prepare(bindings ?? ({} as Bindings)));
  }

  /**
   * @internal Does all of an encode that can fail, and gives what is left to record: for operations
   * that are several plans.
   */
  prepare(bindings: Bindings): Recording | undefined {
    const { device, label } = this.#parts;
    check(!this.#destroyed, "destroyed", () => `${label}: the plan was destroyed.`);
    checkDevice(device);
    const { bindable, others } = this.#hooks;
    checkUsed(label, bindable, bindings, others);
    const before = this.#hooks.before?.(bindings);
    const groups = this.#bindGroups(bindings);
    if (!groups) return undefined; // there is no output element
    return (pass) => {
      before?.(pass);
      this.#record(pass, groups);
    };
  }

  /** Frees the plan's own small buffers. Work that was submitted before still runs. */
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
    for (const [index, { compiled, dispatches }] of this.#parts.stages.entries()) {
      pass.setPipeline(compiled.pipeline);
      for (const { x, y, paramsOffset } of dispatches) {
        pass.setBindGroup(0, groups[index], [paramsOffset]);
        pass.dispatchWorkgroups(x, y);
      }
    }
  }

  /**
   * The bind groups for these tensors. They are those of the last run into the same output, if its
   * other tensors were the same too.
   */
  #bindGroups(bindings: Bindings): readonly GPUBindGroup[] | undefined {
    const { device, label, operands, stages, params, numbers } = this.#parts;
    const tensors = new Map<string, Tensor>();
    this.#hooks.check?.(bindings);
    for (const [name, operand] of operands) {
      const given = this.#hooks.boundBy(bindings, name) ?? operand.fallback;
      checkOperand(`${label}: ${name}`, device, operand, given);
      tensors.set(name, given);
    }
    checkOverlap(label, operands, tensors);
    tieResults(operands, tensors);
    const results = [...tensors].flatMap(([name, tensor]) =>
      operands.get(name)?.written && this.#hooks.bindable.has(name) ? [tensor] : [],
    );
    if (!stages.length || results.every(({ size }) => size === 0)) return undefined;
    const [output] = results;
    const list = [...tensors.values()];
    const known = this.#groups.get(output);
    if (known?.tensors.every((tensor, index) => tensor === list[index])) return known.groups;

    const groups: GPUBindGroup[] = [];
    for (const { source, compiled, names, uniformBytes, boundLike = -1 } of stages) {
      const entriesOf = () =>
        source.bindings.map(({ binding, name, type }): GPUBindGroupEntry => {
          const operand = names?.[name] ?? OPERAND_NAMES[name] ?? name;
          const number = numbers.get(name);
          if (number !== undefined)
            return { binding, resource: { buffer: params, offset: number, size: 4 } };
          const bound = type === "uniform" ? undefined : tensors.get(operand);
          // With no keys there is no byte of k and v to bind; the params stand in for them, unread.
          if (!bound?.size) return { binding, resource: { buffer: params, size: uniformBytes } };
          return { binding, resource: { buffer: bound.buffer, ...bindingRange(bound) } };
        });
      const { layout } = compiled;
      groups.push(
        groups[boundLike] ?? device.createBindGroup({ label, layout, entries: entriesOf() }),
      );
    }
    this.#groups.set(output, { tensors: list, groups });
    return groups;
  }
}

/** The tensor that a caller binds by the operand's name. */
export const boundByName = (bindings: object, name: string): Tensor | undefined =>
  OWN.includes(name) ? undefined : (bindings as Readonly<Record<string, Tensor | undefined>>)[name];

/** The hooks of an operation whose bindings are its tensors by name. */
export const plainHooks = (operands: Operands): PlanHooks<object> => ({
  bindable: bindableOf(operands),
  boundBy: boundByName,
});
