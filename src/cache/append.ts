// Appending to a cache: the plan that every kind of cache makes.

import type { KvSource } from "../attention/kv_source.ts";
import { check } from "../errors.ts";
import { checkDevice, guarded, USAGE } from "../gpu/buffers.ts";
import { type CompiledKernel, checkBindings, compileKernel } from "../gpu/pipelines.ts";
import { Tensor } from "../gpu/tensor.ts";
import { APPEND_PARAMS, type AppendChoice, appendKernel } from "../kernels/cache.ts";
import { UNIFORM_STRIDE } from "../kernels/params.ts";
import { tablesKernel } from "../kernels/tables.ts";
import { takeOptions } from "../options.ts";
import { bindingRange } from "../plan/specs.ts";
import { checkTarget, recordInto } from "../plan/target.ts";
import type { KernelSource } from "../types.ts";
import { boundTensors, countsOf } from "./append_bindings.ts";
import type { TakeRoom } from "./append_moment.ts";
import {
  APPEND_PROBLEM,
  type AppendBindings,
  type AppendProblem,
  type AppendTarget,
  type CacheRotary,
  type ResolvedAppend,
  resolveAppend,
} from "./append_problem.ts";
import { appendUniforms, choiceOf, UNIFORMS } from "./append_uniforms.ts";
import { ready } from "./state.ts";

interface PlanParts {
  readonly target: AppendTarget;
  readonly append: ResolvedAppend;
  readonly choice: AppendChoice;
  readonly source: KernelSource;
  readonly compiled: CompiledKernel;
  /** The kernel that copies counts from the caller's tensor; undefined if counts are numbers. */
  readonly copying: CompiledKernel | undefined;
  readonly params: GPUBuffer;
}

/** The plan's names for the shader's bindings, if the two differ. */
const OPERAND_NAMES: Readonly<Record<string, string>> = { positions: "positionIds" };

/**
 * A compiled append. Make one with the cache's `planAppend`; encode it as often as you like. It is
 * not a `Plan`: its uniforms follow the cache when it grows, and each run counts the lengths up.
 */
export class CacheAppendPlan {
  readonly #parts: PlanParts;
  /** The source as the uniforms describe it. */
  #source: KvSource;
  #groups = new WeakMap<Tensor, { tensors: readonly Tensor[]; group: GPUBindGroup }>();
  readonly #copies = new WeakMap<Tensor, GPUBindGroup>();
  readonly #advance: GPUBindGroup;
  #destroyed = false;

  private constructor(parts: PlanParts) {
    const { target, append, params } = parts;
    this.#parts = parts;
    this.#source = target.source;
    this.#advance = target.state.advanceGroup(target.device, append.label, params, 0);
  }

  /** @internal Use the cache's `planAppend`. */
  static make(parts: PlanParts): CacheAppendPlan {
    return new CacheAppendPlan(parts);
  }

  /**
   * Records the append into a compute pass, or into a pass of its own on a command encoder, and
   * counts the cache's `lengths` up. Allocates no GPU memory, reads nothing back and submits
   * nothing. In a caller's pass it sets the pipeline and bind group 0. Commands of one cache must
   * be submitted in the order in which they were encoded.
   *
   * A cache may have grown since the plan was made; the plan follows it.
   *
   * Throws FoveaError, with nothing recorded and nothing counted, if there is no room for the rows
   * (`"limit"`), if a tensor does not fit the plan, was destroyed or belongs to another device, if
   * tensors overlap that must not, if the target isn't a pass or an encoder, or while calls of the
   * cache such as `append` are not done, because they would run after commands that are encoded
   * now.
   *
   * @example
   * const pass = encoder.beginComputePass();
   * append.encode(pass, { k, v });
   * pass.end();
   */
  encode(target: GPUComputePassEncoder | GPUCommandEncoder, bindings: AppendBindings = {}): void {
    checkTarget(this.#parts.append.label, target);
    this.#checkAlive();
    this.#parts.target
      .moment()
      .now(this.#parts.append.label, (take) => this.record(target, bindings ?? {}, take));
  }

  /**
   * @internal Takes the room and records the append. The caller gives the room back if this throws.
   */
  record(
    target: GPUComputePassEncoder | GPUCommandEncoder,
    bindings: AppendBindings,
    take: TakeRoom,
  ): void {
    const { target: cache, append, compiled } = this.#parts;
    const { label } = append;
    this.#checkAlive();
    const { source } = cache;
    const { counts, most } = countsOf(
      append,
      source.batch,
      bindings.counts ?? append.operands.get("counts")?.fallback,
    );
    if (source !== this.#source) this.#follow(source);
    const group = this.#group(bindings, source);
    const prepare = take(label, most);
    if (!group || most.every((count) => count === 0)) return;
    const { x, y } = append.grid;
    recordInto(target, label, (pass) => {
      prepare?.(pass);
      if (counts instanceof Tensor) this.#copyCounts(pass, counts);
      else if (counts) cache.state.writeCounts(pass, counts);
      pass.setPipeline(compiled.pipeline);
      pass.setBindGroup(0, group, [counts ? UNIFORMS.countedParams : UNIFORMS.params]);
      pass.dispatchWorkgroups(x, y);
      cache.state.advance(
        pass,
        this.#advance,
        counts ? UNIFORMS.advanceCounts : UNIFORMS.advanceRows,
      );
    });
  }

  #checkAlive(): void {
    const { target: cache, append } = this.#parts;
    const { label } = append;
    check(!this.#destroyed, "destroyed", () => `${label}: the plan was destroyed.`);
    checkDevice(cache.device);
    check(!cache.destroyed, "destroyed", () => `${label}: the cache was destroyed.`);
  }

  /** Frees the plan's own small buffer. Work that was submitted before still runs. */
  destroy(): void {
    this.#destroyed = true;
    this.#parts.params.destroy();
  }

  /** Calls `destroy` at the end of a block that declares the plan with `using`. */
  [Symbol.dispose](): void {
    this.destroy();
  }

  /** Takes the memory and the strides of a cache that has grown. */
  #follow(source: KvSource): void {
    const { target, append, params } = this.#parts;
    target.device.queue.writeBuffer(params, 0, appendUniforms(target, append, this.#parts));
    this.#source = source;
    this.#groups = new WeakMap();
  }

  /**
   * The bind group for these tensors. It is that of the last run with the same k, if its other
   * tensors were the same too.
   */
  #group(bindings: AppendBindings, kvSource: KvSource): GPUBindGroup | undefined {
    const { target, append, source, compiled, params } = this.#parts;
    const { label } = append;
    const tensors = boundTensors(target, append, bindings);
    const k = tensors.get("k") as Tensor;
    if (!k.size) return undefined;
    const list = [...tensors.values()];
    const known = this.#groups.get(k);
    if (known?.tensors.every((tensor, index) => tensor === list[index])) return known.group;

    // Whole buffers are bound, because rows end in padding, which their tensors leave out.
    const cache: Readonly<Record<string, Tensor>> = {
      kv_state: kvSource.state,
      cache_k: kvSource.k,
      cache_v: kvSource.v,
    };
    const output = tensors.get("qOutput") ?? tensors.get("q");
    const entries = source.bindings.map(({ binding, name }): GPUBindGroupEntry => {
      if (name === "params")
        return { binding, resource: { buffer: params, size: APPEND_PARAMS.bytes } };
      if (name === "append") {
        return {
          binding,
          resource: { buffer: params, offset: UNIFORMS.append, size: append.appendBytes },
        };
      }
      if (name in cache) return { binding, resource: { buffer: cache[name].buffer } };
      if (name === "angles")
        return { binding, resource: { buffer: (target.rotary as CacheRotary).angles.buffer } };
      const tensor = (name === "o" ? output : tensors.get(OPERAND_NAMES[name] ?? name)) as Tensor;
      return { binding, resource: { buffer: tensor.buffer, ...bindingRange(tensor) } };
    });
    const group = target.device.createBindGroup({ label, layout: compiled.layout, entries });
    this.#groups.set(k, { tensors: list, group });
    return group;
  }

  #copyCounts(pass: GPUComputePassEncoder, counts: Tensor): void {
    const { target, append, copying, params } = this.#parts;
    const { layout, pipeline } = copying as CompiledKernel;
    let group = this.#copies.get(counts);
    if (!group) {
      const resources: GPUBindingResource[] = [
        { buffer: params, size: UNIFORM_STRIDE },
        { buffer: counts.buffer, ...bindingRange(counts) },
        { buffer: target.state.tensor.buffer },
      ];
      const entries = resources.map((resource, binding) => ({ binding, resource }));
      group = target.device.createBindGroup({ label: append.label, layout, entries });
      this.#copies.set(counts, group);
    }
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group, [UNIFORMS.copy]);
    pass.dispatchWorkgroups(Math.ceil(target.source.batch / 64));
  }
}

/** Compiles an append to a cache. */
export async function makeAppendPlan(
  target: AppendTarget,
  problem: AppendProblem,
): Promise<CacheAppendPlan> {
  const { device } = target;
  checkDevice(device);
  check(!target.destroyed, "destroyed", () => `${target.label}: the cache was destroyed.`);
  const append = resolveAppend(
    target,
    takeOptions(`${target.label} append`, problem, APPEND_PROBLEM),
  );
  const { label } = append;
  const choice = choiceOf(target, append);
  const source = appendKernel(choice);
  checkBindings(device, label, source.bindings);
  const given = [...append.operands.values()].flatMap(({ fallback }) => fallback ?? []);
  const [compiled, copying] = await Promise.all([
    compileKernel(device, source),
    append.operands.has("counts") ? compileKernel(device, tablesKernel()) : undefined,
  ]);
  // While the kernels were compiled, the cache may have grown.
  const bytes = appendUniforms(target, append, { choice, source });
  const { value: plan, done } = guarded(device, label, () => {
    const usage = USAGE.UNIFORM | USAGE.COPY_DST;
    const params = device.createBuffer({ label: `${label} params`, size: bytes.byteLength, usage });
    device.queue.writeBuffer(params, 0, bytes);
    return CacheAppendPlan.make({ target, append, choice, source, compiled, copying, params });
  });
  try {
    await ready(done, given);
    return plan;
  } catch (error) {
    plan.destroy();
    throw error;
  }
}
