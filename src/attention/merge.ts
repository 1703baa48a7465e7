// Merging attention over disjoint sets of keys: the plan, and the one-liner on top of it.

import { check } from "../errors.ts";
import { readOptions } from "../given.ts";
import { checkDevice, guarded, settle, USAGE } from "../gpu/buffers.ts";
import { type CompiledKernel, compileKernel } from "../gpu/pipelines.ts";
import { Tensor } from "../gpu/tensor.ts";
import { MERGE_BINDINGS, MERGE_FOLD, MERGE_PARAMS, mergeKernel } from "../kernels/merge.ts";
import { takeOptions } from "../options.ts";
import type { Operand } from "../plan/operand.ts";
import {
  checkOperand,
  checkOverlap,
  checkUsed,
  memoryOf,
  tieResults,
} from "../plan/operand_checks.ts";
import { RUN_OPTIONS, type RunOptions, runOnce } from "../plan/run.ts";
import { bindingRange } from "../plan/specs.ts";
import { checkTarget, type EncodeTarget, type Recording, recordInto } from "../plan/target.ts";
import type { Layout } from "../types.ts";
import type { AttentionResult } from "./attention.ts";
import {
  MERGE_PROBLEM,
  type MergeBindings,
  type MergeProblem,
  mergeDispatches,
  type PartialAttention,
  type ResolvedMerge,
  resolveMerge,
  takePartials,
} from "./merge_problem.ts";

interface PlanParts {
  readonly device: GPUDevice;
  readonly merge: ResolvedMerge;
  /** The operands by their names. */
  readonly named: ReadonlyMap<string, Operand>;
  readonly compiled: CompiledKernel;
  readonly grid: ReturnType<typeof mergeDispatches>;
  readonly params: GPUBuffer;
  readonly workspace: GPUBuffer;
}

/** A compiled merge. Make one with {@link planMerge}; encode it as often as you like. */
export class MergePlan {
  /**
   * Bytes of scratch memory that the plan owns for its runs: 4 a row of [B, H, M], or 4 in all for
   * two partials.
   */
  readonly workspaceBytes: number;
  readonly #parts: PlanParts;
  readonly #groups = new WeakMap<
    Tensor,
    { tensors: readonly Tensor[]; groups: readonly GPUBindGroup[] }
  >();
  #destroyed = false;

  private constructor(parts: PlanParts) {
    this.workspaceBytes = parts.workspace.size;
    this.#parts = parts;
  }

  /** @internal Use {@link planMerge}. */
  static make(parts: PlanParts): MergePlan {
    return new MergePlan(parts);
  }

  /**
   * Records the merge into a compute pass, or into a pass of its own on a command encoder.
   * Allocates no GPU memory and submits nothing. In a caller's pass it sets the pipeline and bind
   * group 0.
   *
   * Throws FoveaError, with nothing recorded, if a tensor does not fit the plan, was destroyed or
   * belongs to another device, or if `output` or `lse` shares its buffer with a partial.
   *
   * @example
   * const pass = encoder.beginComputePass();
   * merge.encode(pass, { output });
   * pass.end();
   */
  encode(target: EncodeTarget, bindings: MergeBindings = {}): void {
    checkTarget(this.#parts.merge.label, target);
    recordInto(target, this.#parts.merge.label, this.prepare(bindings ?? {}));
  }

  /**
   * @internal All that can fail of an encode, and what is left to record: for operations that are
   *   several plans.
   */
  prepare(bindings: MergeBindings): Recording | undefined {
    const { device, merge } = this.#parts;
    check(!this.#destroyed, "destroyed", () => `${merge.label}: the plan was destroyed.`);
    checkDevice(device);
    checkUsed(merge.label, BINDABLE, bindings);
    const groups = this.#bindGroups(bindings);
    return groups && ((pass) => this.#record(pass, groups));
  }

  /** Frees the plan's own small buffers. Work that was submitted before still runs. */
  destroy(): void {
    this.#destroyed = true;
    this.#parts.params.destroy();
    this.#parts.workspace.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  #record(pass: GPUComputePassEncoder, groups: readonly GPUBindGroup[]): void {
    const { compiled, grid } = this.#parts;
    pass.setPipeline(compiled.pipeline);
    for (const [index, { paramsOffset }] of grid.dispatches.entries()) {
      pass.setBindGroup(0, groups[index], [paramsOffset]);
      pass.dispatchWorkgroups(grid.x, grid.y);
    }
  }

  /**
   * The bind groups for these tensors: the last ones of the same output, if the other tensors are
   * the same too.
   */
  #bindGroups(bindings: MergeBindings): readonly GPUBindGroup[] | undefined {
    const { device, merge, named, compiled, grid, params, workspace } = this.#parts;
    const { label, operands, partials, rows } = merge;
    const given = bindings.partials?.length ?? partials;
    check(
      given === partials,
      "argument",
      () => `${label}: the plan merges ${partials} partials, got ${given}.`,
    );
    const tensors = new Map<string, Tensor>();
    for (const operand of operands) {
      const used = operand.pick(bindings) ?? operand.fallback;
      checkOperand(`${label}: ${operand.name}`, device, operand, used);
      tensors.set(operand.name, used);
    }
    checkOverlap(label, named, tensors);
    tieResults(named, tensors);
    if (rows === 0) return undefined;
    const list = [...tensors.values()];
    const output = tensors.get("output") as Tensor;
    const known = this.#groups.get(output);
    if (known?.tensors.every((used, index) => used === list[index])) return known.groups;

    const groups = grid.dispatches.map(({ bound }) => {
      const entries = MERGE_BINDINGS.map(({ binding, name, type }): GPUBindGroupEntry => {
        if (type === "uniform")
          return { binding, resource: { buffer: params, size: MERGE_PARAMS.bytes } };
        const used = name === "workspace" ? undefined : (tensors.get(bound[name].name) as Tensor);
        return {
          binding,
          resource: used ? { buffer: used.buffer, ...bindingRange(used) } : { buffer: workspace },
        };
      });
      return device.createBindGroup({ label, layout: compiled.layout, entries });
    });
    this.#groups.set(output, { tensors: list, groups });
    return groups;
  }
}

/**
 * Compiles the merge of partial results: attention of the same queries over disjoint sets of keys
 * becomes attention over all of these keys, exactly.
 *
 * ```
 * m = max_i LSE_i,   w_i = exp(LSE_i - m)
 * O = sum_i w_i O_i / sum_i w_i,   LSE = m + ln sum_i w_i
 * ```
 *
 * Source: the reduction of FlashDecoding's split-KV. Weights and sums are f32. A partial without a
 * key in a row (LSE -Infinity) adds nothing to it, whatever its output holds; a row without a key
 * in any partial gets output 0 and LSE -Infinity. The same inputs in the same order on the same
 * device give the same bits. LSEs are natural logarithms, and finite otherwise.
 *
 * One kernel serves every problem; two partials take one dispatch, each further two one more.
 * `output` and `lse` need buffers that hold no partial.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const partial = { output: { shape: [1, 8, 128, 64] }, lse: { shape: [1, 8, 128] } };
 * const merge = await planMerge(device, { partials: [partial, partial] });
 */
export async function planMerge(device: GPUDevice, problem: MergeProblem): Promise<MergePlan> {
  const taken = await readOptions("mergeAttention", problem, MERGE_PROBLEM);
  const { plan, allocated } = await preparePlan(device, taken);
  await allocated;
  return plan;
}

/**
 * A plan, and a promise that rejects if its buffers could not be had: for callers with more to wait
 * for.
 */
async function preparePlan(device: GPUDevice, problem: MergeProblem) {
  checkDevice(device);
  const merge = resolveMerge(device, problem);
  const { label, operands, rows, partials } = merge;
  const compiled = await compileKernel(device, mergeKernel());
  const grid = mergeDispatches(device, merge);
  const { value, done } = guarded(device, label, () => {
    const size = 4 * (partials > MERGE_FOLD ? Math.max(1, rows) : 1);
    const workspace = device.createBuffer({
      label: `${label} workspace`,
      size,
      usage: USAGE.STORAGE,
    });
    const usage = USAGE.UNIFORM | USAGE.COPY_DST;
    const params = device.createBuffer({
      label: `${label} params`,
      size: grid.bytes.byteLength,
      usage,
    });
    device.queue.writeBuffer(params, 0, grid.bytes);
    return { params, workspace };
  });
  const named = new Map(operands.map((operand) => [operand.name, operand]));
  const plan = MergePlan.make({ device, merge, named, compiled, grid, ...value });
  const allocated = settle([done, ...memoryOf(named)]);
  allocated.catch(() => plan.destroy());
  return { plan, allocated, merge };
}

/** What a run may bind. */
const BINDABLE: ReadonlySet<string> = new Set<keyof MergeBindings>(["partials", "output", "lse"]);

/** Options of {@link mergeAttention}. */
export interface MergeOptions extends RunOptions, Pick<MergeProblem, "infinityIsEmpty"> {
  /**
   * Where the output goes, in a buffer that holds no partial. Default: a new tensor, the caller's
   * to destroy.
   */
  readonly output?: Tensor;
  /** Where the log-sum-exp goes, likewise. */
  readonly lse?: Tensor;
  /** Axis order of all outputs. Default `"bhmd"`. */
  readonly layout?: Layout;
  /** Name of the GPU objects in errors and captures. Default `"mergeAttention"`. */
  readonly label?: string;
}

/** The names of the options. */
const { partials: _partials, ...MERGE_OPTIONS } = { ...MERGE_PROBLEM, ...RUN_OPTIONS };

type Partial = Required<Pick<AttentionResult, "output" | "lse">>;

/**
 * Merges attention of the same queries over disjoint sets of keys into attention over all of these
 * keys. See {@link planMerge} for the formula and the rules. The result can be merged again.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * @param partials One or more results `{ output [B, H, M, Dv], lse [B, H, M] }`, as `attention`
 *   gives them with the option `{ lse: true }`. They stay the caller's.
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @example
 * const ranges = [[0, 1000], [1000, 1500]];
 * const partials = await Promise.all(
 *   ranges.map(([a, b]) => attention(q, k.slice(2, a, b), v.slice(2, a, b), { lse: true })),
 * );
 * const { output, lse } = await mergeAttention(partials);
 */
export async function mergeAttention(
  partials: readonly PartialAttention[],
  asked: MergeOptions = {},
): Promise<Required<Pick<AttentionResult, "output" | "lse">>> {
  const options = takeOptions("mergeAttention", asked, MERGE_OPTIONS);
  const { label = "mergeAttention" } = options;
  const parts = takePartials(label, partials) as readonly Partial[];
  for (const [index, partial] of parts.entries()) {
    for (const name of ["output", "lse"] as const) {
      const what = `${label}: partials[${index}].${name}`;
      check(
        partial[name] instanceof Tensor,
        "argument",
        () => `${what} must be a Tensor; make one with tensor().`,
      );
    }
  }
  const { device } = parts[0].output;
  const { plan, allocated, merge } = await preparePlan(device, { ...options, partials: parts });
  return runOnce(device, label, { plan, allocated }, options, (make) => ({
    output: options.output ?? make("output", merge.outputShape),
    lse: options.lse ?? make("lse", merge.lseShape),
  })) as Promise<Required<Pick<AttentionResult, "output" | "lse">>>;
}
