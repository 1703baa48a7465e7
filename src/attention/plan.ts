// A plan: a problem, its compiled kernel and its uniform. Encoding a plan is synchronous and touches nothing but the
// caller's pass.

import { check } from "../errors.ts";
import { checkDevice, guarded, USAGE } from "../gpu/buffers.ts";
import { isSoftware } from "../gpu/device.ts";
import { type CompiledKernel, checkBindings, compileKernel } from "../gpu/pipelines.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { chooseForwardTile, forwardGrid, forwardKernel } from "../kernels/forward.ts";
import { PARAMS_BYTES } from "../kernels/params.ts";
import type { Access, SlotChoice } from "../kernels/slots.ts";
import { tablesKernel } from "../kernels/tables.ts";
import type { KernelSource } from "../types.ts";
import { copyDispatch, type Dispatch, dispatchesOf, type Grid, UNIFORM_STRIDE } from "./dispatch.ts";
import { writeNumber } from "./functions.ts";
import { checkCaptures, checkOperand, checkOverlap } from "./operand_checks.ts";
import {
  type AttentionBindings,
  attentionTensors,
  isDense,
  type Operand,
  type OperandName,
  type Operands,
  operandsOf,
  type PlanMemory,
} from "./operands.ts";
import { type AttentionProblem, type ResolvedProblem, type ResolvedScores, resolveProblem } from "./problem.ts";
import { bindingRange } from "./specs.ts";

/** Our names of the shader's bindings, where they differ. */
const OPERAND_NAMES: Readonly<Record<string, OperandName>> = {
  o: "output",
  row_max: "rowMax",
  mask_tensor: "mask",
};

/** One kernel of a plan, and how it covers the problem. */
export interface Stage {
  readonly source: KernelSource;
  readonly grid: Grid;
}

interface CompiledStage {
  readonly source: KernelSource;
  /** The operands that it binds under other names than the rest does. */
  readonly names?: Readonly<Record<string, OperandName>>;
  readonly compiled: CompiledKernel;
  readonly dispatches: readonly Dispatch[];
}

interface PlanParts {
  readonly device: GPUDevice;
  readonly label: string;
  readonly operands: Operands;
  readonly stages: readonly CompiledStage[];
  readonly params: GPUBuffer;
  /** Where captured numbers lie in the params, by the names of their bindings. */
  readonly numbers: ReadonlyMap<string, number>;
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
    this.kernel = parts.stages.find(({ names }) => !names)?.source.label ?? "";
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
    const { device, label, operands, stages, params, numbers } = this.#parts;
    const tensors = new Map<OperandName, Tensor>();
    checkCaptures(label, operands, bindings);
    for (const [name, operand] of operands) {
      const given = boundBy(bindings, name) ?? operand.fallback;
      checkOperand(`${label}: ${name}`, device, operand, given);
      tensors.set(name, given);
    }
    checkOverlap(label, operands, tensors);
    const output = tensors.get("output") ?? tensors.get("weights");
    if (!output?.size) return undefined;
    const list = [...tensors.values()];
    const known = this.#groups.get(output);
    if (known?.tensors.every((tensor, index) => tensor === list[index])) return known.groups;

    const groups = stages.map(({ source, compiled, names }) => {
      const entries = source.bindings.map(({ binding, name, type }): GPUBindGroupEntry => {
        const operand = names?.[name] ?? OPERAND_NAMES[name] ?? (name as OperandName);
        const number = numbers.get(name);
        if (number !== undefined) return { binding, resource: { buffer: params, offset: number, size: 4 } };
        const bound = type === "uniform" ? undefined : tensors.get(operand);
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

/** The plan of an attention problem by the stages that `stagesOf` gives for it. */
export async function assemblePlan(
  device: GPUDevice,
  problem: AttentionProblem,
  stagesOf: StagesOf,
  workspaceOf?: (problem: ResolvedProblem) => readonly number[],
) {
  checkDevice(device);
  const resolved = resolveProblem(problem);
  const asked = attentionTensors(problem, resolved);
  const memory = operandsOf(device, problem, resolved, asked, workspaceOf?.(resolved));
  const built = await buildPlan(device, resolved, memory, (slots) => stagesOf(resolved, slots));
  return { ...built, resolved };
}

/** Compiles the stages of a plan and lays out their uniforms. Whatever fails, the memory that the plan owns is freed. */
export async function buildPlan(
  device: GPUDevice,
  resolved: ResolvedScores,
  memory: PlanMemory,
  stagesOf: (slots: SlotChoice) => readonly Stage[],
) {
  const { label } = resolved;
  const { operands, owned, places, copies } = memory;
  try {
    const slots = slotChoice(device, resolved, operands);
    const stages: CompiledStage[] = [];
    const chunks: ArrayBuffer[] = [];
    let offset = 0;
    const planned = stagesOf(slots);
    for (const { source } of planned) checkBindings(device, label, source.bindings);
    const copying = copies.length ? compileKernel(device, tablesKernel()) : undefined;
    const compiled = await Promise.all(planned.map(({ source }) => compileKernel(device, source)));
    const add = (stage: Omit<CompiledStage, "dispatches">, laid: ReturnType<typeof dispatchesOf>) => {
      stages.push({ ...stage, dispatches: laid.dispatches });
      chunks.push(laid.bytes);
      offset += laid.bytes.byteLength;
    };
    for (const copy of copies) {
      const names = { source: copy.from };
      const stage = { source: tablesKernel(), compiled: (await copying) as CompiledKernel, names };
      add(stage, copyDispatch(operands.get(copy.from) as Operand, copy.at, offset));
    }
    for (const [index, { source, grid }] of planned.entries()) {
      const laid = dispatchesOf(device, resolved, operands, places, slots, grid, offset);
      add({ source, compiled: compiled[index] }, laid);
    }
    const numbers = new Map<string, number>();
    for (const [name, number] of memory.numbers) {
      const bytes = new ArrayBuffer(UNIFORM_STRIDE);
      writeNumber(bytes, 0, number);
      numbers.set(name, offset);
      chunks.push(bytes);
      offset += UNIFORM_STRIDE;
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
    const plan = AttentionPlan.make({ device, label, operands, stages, params, numbers, owned });
    const allocated = Promise.all([done, ...owned.map((tensor) => tensor.allocated)]);
    allocated.catch(() => plan.destroy());
    return { plan, allocated, owned };
  } catch (error) {
    for (const tensor of owned) tensor.destroy();
    throw error;
  }
}

/** What is the plan's own, and not the caller's to bind. */
const OWN: readonly OperandName[] = ["workspace", "tables", "blocks"];

/** The tensor that the caller binds for an operand. */
function boundBy(bindings: AttentionBindings, name: OperandName): Tensor | undefined {
  if (OWN.includes(name)) return undefined;
  if (name.startsWith("captures.")) return bindings.captures?.[name.slice("captures.".length)];
  return bindings[name as Exclude<keyof AttentionBindings, "captures">];
}

function slotChoice(device: GPUDevice, problem: ResolvedScores, operands: Operands): SlotChoice {
  const access = (name: OperandName): Access => {
    const operand = operands.get(name);
    if (!operand) return "dense"; // no kernel of the plan reads or writes it
    const { dtype } = operand.spec;
    const aligned = isDense(operand);
    if (dtype !== "f16" && dtype !== "bf16") return aligned ? "dense" : "strided";
    if (dtype === "f16" && aligned && device.features.has("shader-f16")) return "f16";
    return aligned ? `${dtype}-packed` : `${dtype}-packed-strided`;
  };
  const has = (option: string) => problem.tables.some(({ name }) => name === option);
  const { mask, sequence } = problem;
  return {
    ...{ q: access("q"), k: access("k"), v: access("v"), o: access("output") },
    ...(sequence && { sequence }),
    tables: operands.has("tables"),
    lse: operands.has("lse"),
    rowMax: operands.has("rowMax"),
    softcap: problem.softcap !== undefined,
    bias: problem.bias !== undefined,
    relativeBias: has("relativeBias"),
    alibi: has("alibiSlopes"),
    sinks: has("sinks"),
    dropout: problem.dropout !== undefined,
    ...(mask && { maskTensor: mask.dtype === "u8" ? "bytes" : "bits" }),
    ...(problem.scoreFunction && { score: problem.scoreFunction.text }),
    ...(problem.maskFunction && { mask: problem.maskFunction.text }),
    blocks: problem.blockMask !== undefined,
  };
}
