// A plan: a problem, its compiled kernel and its uniform. Encoding a plan is synchronous and touches nothing but the
// caller's pass.

import { check } from "../errors.ts";
import { checkDevice, guarded, USAGE } from "../gpu/buffers.ts";
import { isSoftware } from "../gpu/device.ts";
import { type CompiledKernel, compileKernel } from "../gpu/pipelines.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { chooseForwardTile, forwardGrid, forwardKernel } from "../kernels/forward.ts";
import { PARAMS_BYTES } from "../kernels/params.ts";
import type { KernelSource } from "../types.ts";
import { type Dispatch, dispatchesOf } from "./dispatch.ts";
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
import { type AttentionProblem, resolveProblem } from "./problem.ts";

/** Our names of the shader's bindings, where they differ. */
const OPERAND_NAMES: Readonly<Record<string, OperandName>> = {
  o: "output",
  kv_lengths: "kvLengths",
  query_offsets: "queryOffset",
};

interface PlanParts {
  readonly device: GPUDevice;
  readonly label: string;
  readonly source: KernelSource;
  readonly compiled: CompiledKernel;
  readonly operands: Operands;
  readonly dispatches: readonly Dispatch[];
  readonly params: GPUBuffer;
  /** Small tensors of the plan's own. */
  readonly owned: readonly Tensor[];
}

/** A compiled attention problem. Make one with {@link planAttention}; encode it as often as you like. */
export class AttentionPlan {
  /** Kernel and variant that the tile table chose: `forward 64x32`. */
  readonly kernel: string;
  /** Bytes of scratch memory that a run needs: none. */
  readonly workspaceBytes = 0;
  readonly #parts: PlanParts;
  readonly #groups = new WeakMap<Tensor, { tensors: readonly Tensor[]; group: GPUBindGroup }>();
  #destroyed = false;

  /** @internal Use {@link planAttention}. */
  constructor(parts: PlanParts) {
    this.kernel = parts.source.label;
    this.#parts = parts;
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
    const group = this.#bindGroup(bindings);
    if (!group) return; // there is no output element
    if ("dispatchWorkgroups" in target) {
      this.#record(target, group);
    } else {
      const pass = target.beginComputePass({ label });
      this.#record(pass, group);
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

  #record(pass: GPUComputePassEncoder, group: GPUBindGroup): void {
    pass.setPipeline(this.#parts.compiled.pipeline);
    for (const { x, y, paramsOffset } of this.#parts.dispatches) {
      pass.setBindGroup(0, group, [paramsOffset]);
      pass.dispatchWorkgroups(x, y);
    }
  }

  /** The bind group for these tensors: the last one of the same output, if the other tensors are the same too. */
  #bindGroup(bindings: AttentionBindings): GPUBindGroup | undefined {
    const { device, label, operands, source, compiled, params } = this.#parts;
    const tensors = new Map<OperandName, Tensor>();
    for (const [name, operand] of operands) {
      const given = bindings[name] ?? operand.fallback;
      checkOperand(`${label}: ${name}`, device, operand, given);
      tensors.set(name, given);
    }
    checkOverlap(label, operands, tensors);
    const output = tensors.get("output");
    if (!output?.size) return undefined;
    const list = [...tensors.values()];
    const known = this.#groups.get(output);
    if (known?.tensors.every((tensor, index) => tensor === list[index])) return known.group;

    const entries = source.bindings.map(({ binding, name, type }): GPUBindGroupEntry => {
      if (type === "uniform") return { binding, resource: { buffer: params, size: PARAMS_BYTES } };
      const bound = tensors.get(OPERAND_NAMES[name] ?? (name as OperandName)) as Tensor;
      // With no keys there is no byte of k and v to bind; the kernel does not read the stand-in.
      if (bound.size === 0) return { binding, resource: { buffer: params, size: PARAMS_BYTES } };
      return { binding, resource: { buffer: bound.buffer, ...bindingRange(bound) } };
    });
    const group = device.createBindGroup({ label, layout: compiled.layout, entries });
    this.#groups.set(output, { tensors: list, group });
    return group;
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

/** A plan, and a promise that rejects if its small buffers could not be had: for callers with more to wait for. */
export async function preparePlan(device: GPUDevice, problem: AttentionProblem) {
  checkDevice(device);
  const resolved = resolveProblem(problem);
  const { label, headDim, vDim } = resolved;
  const { operands, owned } = operandsOf(device, problem, resolved);
  const dense = (...names: OperandName[]) => names.every((name) => isDense(operands.get(name) as Operand));
  const slots = {
    denseQ: dense("q"),
    denseKv: dense("k", "v"),
    denseO: dense("output"),
    perBatch: operands.has("kvLengths"),
    lse: operands.has("lse"),
  };
  const limits = { workgroupBytes: device.limits.maxComputeWorkgroupStorageSize, software: isSoftware(device) };
  const tile = chooseForwardTile(headDim, vDim, limits, resolved.variant);
  const source = forwardKernel({ headDim, vDim, tile, ...slots });
  const compiled = await compileKernel(device, source).catch((error: unknown) => {
    for (const tensor of owned) tensor.destroy();
    throw error;
  });
  const grid = forwardGrid(tile, headDim, vDim, resolved.seqQ);
  const { dispatches, bytes } = dispatchesOf(device, resolved, operands, slots, grid);
  const { value: params, done } = guarded(device, label, () => {
    const size = bytes.byteLength;
    const buffer = device.createBuffer({
      label: `${label} params`,
      size,
      usage: USAGE.UNIFORM | USAGE.STORAGE | USAGE.COPY_DST,
    });
    device.queue.writeBuffer(buffer, 0, bytes);
    return buffer;
  });
  const plan = new AttentionPlan({ device, label, source, compiled, operands, dispatches, params, owned });
  const allocated = Promise.all([done, ...owned.map((tensor) => tensor.allocated)]);
  allocated.catch(() => plan.destroy());
  return { plan, allocated, resolved };
}
