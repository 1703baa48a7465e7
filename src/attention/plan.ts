// A plan: a problem, its compiled kernel and its uniform. Encoding a plan is synchronous and touches nothing but the
// caller's pass.

import { check } from "../errors.ts";
import { checkDevice, guarded, USAGE } from "../gpu/buffers.ts";
import { isSoftware } from "../gpu/device.ts";
import { type CompiledKernel, compileKernel } from "../gpu/pipelines.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { chooseForwardTile, forwardGrid, forwardKernel } from "../kernels/forward.ts";
import { PARAMS_BYTES } from "../kernels/params.ts";
import type { SlotChoice } from "../kernels/slots.ts";
import type { KernelSource } from "../types.ts";
import { type Dispatch, dispatchesOf, type Grid } from "./dispatch.ts";
import {
  type AttentionBindings,
  bindingRange,
  checkOperand,
  checkOverlap,
  isDense,
  type Operand,
  type OperandName,
  type Operands,
  operandsOf,
} from "./operands.ts";
import { type AttentionProblem, type ResolvedProblem, resolveProblem } from "./problem.ts";

/** Our names of the shader's bindings, where they differ. */
const OPERAND_NAMES: Readonly<Record<string, OperandName>> = {
  o: "output",
  kv_lengths: "kvLengths",
  query_offsets: "queryOffset",
};

/** One kernel of a plan, and how it covers the problem. */
export interface Stage {
  readonly source: KernelSource;
  readonly grid: Grid;
}

interface CompiledStage {
  readonly source: KernelSource;
  readonly compiled: CompiledKernel;
  readonly dispatches: readonly Dispatch[];
}

interface PlanParts {
  readonly device: GPUDevice;
  readonly label: string;
  readonly operands: Operands;
  readonly stages: readonly CompiledStage[];
  readonly params: GPUBuffer;
  /** Tensors of the plan's own. */
  readonly owned: readonly Tensor[];
}

/** A compiled attention problem. Make one with {@link planAttention}; encode it as often as you like. */
export class AttentionPlan {
  /** Kernel and variant that the tile table chose: `forward 64x32`. */
  readonly kernel: string;
  /** Bytes of scratch memory that the plan owns for its runs. The forward kernel needs none. */
  readonly workspaceBytes: number;
  readonly #parts: PlanParts;
  readonly #groups = new WeakMap<Tensor, { tensors: readonly Tensor[]; groups: readonly GPUBindGroup[] }>();
  #destroyed = false;

  private constructor(parts: PlanParts) {
    this.kernel = parts.stages[0].source.label;
    this.workspaceBytes = 4 * (parts.operands.get("workspace")?.fallback?.size ?? 0);
    this.#parts = parts;
  }

  /** @internal Use {@link planAttention}. */
  static make(parts: PlanParts): AttentionPlan {
    return new AttentionPlan(parts);
  }

  /**
   * Records the attention into a compute pass, or into a pass of its own on a command encoder. Allocates no GPU memory
   * and submits nothing. In a caller's pass it sets the pipeline and bind group 0.
   *
   * Throws FoveaError, with nothing recorded, if a tensor does not fit the plan, was destroyed or belongs to another
   * device, or if an output shares its buffer with an input.
   *
   * @example
   * const pass = encoder.beginComputePass();
   * plan.encode(pass, { q, k, v, output });
   * pass.end();
   */
  encode(target: GPUComputePassEncoder | GPUCommandEncoder, bindings: AttentionBindings = {}): void {
    const { device, label } = this.#parts;
    check(!this.#destroyed, "destroyed", () => `${label}: the plan was destroyed.`);
    checkDevice(device);
    const groups = this.#bindGroups(bindings);
    if (!groups) return; // there is no output element
    if ("dispatchWorkgroups" in target) {
      this.#record(target, groups);
    } else {
      const pass = target.beginComputePass({ label });
      this.#record(pass, groups);
      pass.end();
    }
  }

  /** Frees the plan's own small buffers. Work that was submitted before still runs. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#parts.params.destroy();
    for (const owned of this.#parts.owned) owned.destroy();
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

  /** The bind groups for these tensors: the last ones of the same output, if the other tensors are the same too. */
  #bindGroups(bindings: AttentionBindings): readonly GPUBindGroup[] | undefined {
    const { device, label, operands, stages, params } = this.#parts;
    const tensors = new Map<OperandName, Tensor>();
    for (const [name, operand] of operands) {
      const given = (name === "workspace" ? undefined : bindings[name]) ?? operand.fallback;
      checkOperand(`${label}: ${name}`, device, operand, given);
      tensors.set(name, given);
    }
    checkOverlap(label, operands, tensors);
    const output = tensors.get("output");
    if (!output?.size) return undefined;
    const list = [...tensors.values()];
    const known = this.#groups.get(output);
    if (known?.tensors.every((tensor, index) => tensor === list[index])) return known.groups;

    const groups = stages.map(({ source, compiled }) => {
      const entries = source.bindings.map(({ binding, name, type }): GPUBindGroupEntry => {
        const bound = type === "uniform" ? undefined : tensors.get(OPERAND_NAMES[name] ?? (name as OperandName));
        // With no keys there is no byte of k and v to bind; the params stand in for them, unread.
        if (!bound?.size) return { binding, resource: { buffer: params, size: PARAMS_BYTES } };
        return { binding, resource: { buffer: bound.buffer, ...bindingRange(bound) } };
      });
      return device.createBindGroup({ label, layout: compiled.layout, entries });
    });
    this.#groups.set(output, { tensors: list, groups });
    return groups;
  }
}

/**
 * Compiles softmax(scale * Q K^T + mask) V for a problem: a checked, reusable recipe without any memory of size M x N.
 * Compilation is asynchronous and happens once for a device and a set of constants (head dims, tile, slots); lengths,
 * strides and causality are not among them.
 *
 * ```
 * s[b,h,i,j] = scale * Q[b,h,i,:] . K[b,g,j,:]       g = floor(h * Hkv / H)
 * O[b,h,i,:] = sum_j p[b,h,i,j] V[b,g,j,:]           p = softmax of s over the keys j that query i sees
 * LSE[b,h,i] = ln sum_j exp(s[b,h,i,j])
 * ```
 *
 * Source: Attention Is All You Need (arXiv 1706.03762), computed as in FlashAttention-2 (arXiv 2307.08691).
 *
 * Scores, softmax and sums are f32. A query that sees no key gets output 0 and LSE -Infinity. A key that a query does
 * not see never reaches its output, whatever it holds. The same inputs on the same device give the same bits.
 *
 * Rejects with FoveaError: `"argument"` and `"limit"` before the GPU sees anything; `"shader"`, `"device-lost"`,
 * `"out-of-memory"`.
 *
 * @example
 * const plan = await planAttention(device, { q, k, v, causal: true });
 * plan.encode(encoder, { output });
 * device.queue.submit([encoder.finish()]);
 */
export async function planAttention(device: GPUDevice, problem: AttentionProblem): Promise<AttentionPlan> {
  const { plan, allocated } = await preparePlan(device, problem);
  await allocated;
  return plan;
}

/** A plan, and a promise that rejects if its buffers could not be had: for callers with more to wait for. */
export function preparePlan(device: GPUDevice, problem: AttentionProblem) {
  return assemblePlan(device, problem, ({ headDim, vDim, seqQ, variant }, slots) => {
    const limits = { workgroupBytes: device.limits.maxComputeWorkgroupStorageSize, software: isSoftware(device) };
    const tile = chooseForwardTile(headDim, vDim, limits, variant);
    return [{ source: forwardKernel({ headDim, vDim, tile, ...slots }), grid: forwardGrid(tile, headDim, vDim, seqQ) }];
  });
}

/** The stages of a problem's plan, and the shape of the scratch memory that they share. */
type StagesOf = (problem: ResolvedProblem, slots: SlotChoice) => readonly Stage[];

/** Checks a problem, compiles the stages that `stagesOf` gives for it, and lays out their uniforms. */
export async function assemblePlan(
  device: GPUDevice,
  problem: AttentionProblem,
  stagesOf: StagesOf,
  workspaceOf?: (problem: ResolvedProblem) => readonly number[],
) {
  checkDevice(device);
  const resolved = resolveProblem(problem);
  const { label } = resolved;
  const { operands, owned } = operandsOf(device, problem, resolved, workspaceOf?.(resolved));
  const slots = slotChoice(operands);
  try {
    const stages: CompiledStage[] = [];
    const chunks: ArrayBuffer[] = [];
    let offset = 0;
    const planned = stagesOf(resolved, slots);
    const compiled = await Promise.all(planned.map(({ source }) => compileKernel(device, source)));
    for (const [index, { source, grid }] of planned.entries()) {
      const { dispatches, bytes } = dispatchesOf(device, resolved, operands, slots, grid, offset);
      stages.push({ source, compiled: compiled[index], dispatches });
      chunks.push(bytes);
      offset += bytes.byteLength;
    }
    const { value: params, done } = guarded(device, label, () => {
      const usage = USAGE.UNIFORM | USAGE.STORAGE | USAGE.COPY_DST;
      const buffer = device.createBuffer({ label: `${label} params`, size: offset, usage });
      chunks.reduce((at, bytes) => {
        device.queue.writeBuffer(buffer, at, bytes);
        return at + bytes.byteLength;
      }, 0);
      return buffer;
    });
    const plan = AttentionPlan.make({ device, label, operands, stages, params, owned });
    const allocated = Promise.all([done, ...owned.map((tensor) => tensor.allocated)]);
    allocated.catch(() => plan.destroy());
    return { plan, allocated, resolved, owned };
  } catch (error) {
    for (const tensor of owned) tensor.destroy();
    throw error;
  }
}

function slotChoice(operands: Operands): SlotChoice {
  const dense = (...names: OperandName[]) => names.every((name) => isDense(operands.get(name) as Operand));
  return {
    denseQ: dense("q"),
    denseKv: dense("k", "v"),
    denseO: dense("output"),
    perBatch: operands.has("kvLengths"),
    lse: operands.has("lse"),
  };
}
