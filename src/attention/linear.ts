// Linear attention: the plan, and the one-liner on top of it.

import { check } from "../errors.ts";
import { checkDevice, guarded, USAGE } from "../gpu/buffers.ts";
import { isSoftware } from "../gpu/device.ts";
import { type CompiledKernel, checkBindings, compileKernel } from "../gpu/pipelines.ts";
import { resolveSpec, Tensor, tensor } from "../gpu/tensor.ts";
import {
  LINEAR_PARAMS_BYTES,
  type LinearKernel,
  type LinearSpecialisation,
  linearKernel,
  recurrentTile,
  stateVec4s,
} from "../kernels/linear.ts";
import type { KernelSource } from "../types.ts";
import { accessOf } from "./build.ts";
import {
  givenTensor,
  type LinearAttentionProblem,
  type LinearAttentionSettings,
  type LinearTensor,
  type ResolvedLinear,
  resolveLinear,
} from "./linear_problem.ts";
import { type LinearStep, linearSteps, packSteps, segmentsOf } from "./linear_steps.ts";
import { checkOperand, checkOverlap } from "./operand_checks.ts";
import type { Operand } from "./operands.ts";
import type { PerBatch } from "./options.ts";
import { checkTensors, type MakeResult, runOnce } from "./run.ts";
import { bindingBase, bindingRange, checkBindingLimit, type ResolvedSpec } from "./specs.ts";

/**
 * Memory for one run of a plan of linear attention: tensors that look as the plan was told. Those that it was made with
 * are the default.
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
  readonly groups: readonly { source: KernelSource; compiled: CompiledKernel; names: LinearStep["names"] }[];
  readonly dispatches: readonly { group: number; x: number; y: number; paramsOffset: number }[];
  readonly params: GPUBuffer;
  readonly owned: readonly Tensor[];
}

/** Compiled linear attention. Make one with {@link planLinearAttention}; encode it as often as you like. */
export class LinearAttentionPlan {
  /** What runs: `"linear chunked"`, all tokens at once, or `"linear recurrent"`, one after the other. */
  readonly kernel: string;
  /** Bytes of scratch memory that the plan owns for its runs, states that the caller does not keep included. */
  readonly workspaceBytes: number;
  readonly #parts: PlanParts;
  readonly #bound = new WeakMap<Tensor, { tensors: readonly Tensor[]; groups: readonly GPUBindGroup[] }>();
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
   * Records the attention into a compute pass, or into a pass of its own on a command encoder. Allocates no GPU memory
   * and submits nothing. In a caller's pass it sets the pipeline and bind group 0.
   *
   * Throws FoveaError, with nothing recorded, if a tensor does not fit the plan, was destroyed or belongs to another
   * device, or if what is written shares its buffer with what is read; a state in place is one tensor, and may be.
   *
   * @example
   * const decode = await planLinearAttention(device, { q, k, v, updateRule: "linear", state: { shape: [1, 8, 64, 64] } });
   * decode.encode(encoder, { output, state: tensor(device, [1, 8, 64, 64]) });
   */
  encode(target: GPUComputePassEncoder | GPUCommandEncoder, bindings: LinearAttentionBindings = {}): void {
    const { device, label, dispatches } = this.#parts;
    check(!this.#destroyed, "destroyed", () => `${label}: the plan was destroyed.`);
    checkDevice(device);
    const groups = this.#bindGroups(bindings);
    if (dispatches.length === 0) return;
    if ("dispatchWorkgroups" in target) {
      this.#record(target, groups);
    } else {
      const pass = target.beginComputePass({ label });
      this.#record(pass, groups);
      pass.end();
    }
  }

  /** Frees the plan's own buffers. Work that was submitted before still runs. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#parts.params.destroy();
    for (const owned of this.#parts.owned) owned.destroy();
  }

  #record(pass: GPUComputePassEncoder, groups: readonly GPUBindGroup[]): void {
    for (const { group, x, y, paramsOffset } of this.#parts.dispatches) {
      pass.setPipeline(this.#parts.groups[group].compiled.pipeline);
      pass.setBindGroup(0, groups[group], [paramsOffset]);
      pass.dispatchWorkgroups(x, y);
    }
  }

  /** The bind groups for these tensors: the last ones of the same output, if the other tensors are the same too. */
  #bindGroups(bindings: LinearAttentionBindings): readonly GPUBindGroup[] {
    const { device, label, operands, bindable, groups, params } = this.#parts;
    const tensors = new Map<string, Tensor>();
    for (const name of Object.keys(bindings)) {
      const unknown = bindings[name as LinearTensor] !== undefined && !bindable.has(name);
      check(!unknown, "argument", () => `${label}: the plan has no ${name}; it has ${[...bindable].join(", ")}.`);
    }
    for (const [name, operand] of operands) {
      const given = (bindable.has(name) && bindings[name as LinearTensor]) || operand.fallback;
      checkOperand(`${label}: ${name}`, device, operand, given);
      tensors.set(name, given);
    }
    checkOverlap(label, operands, tensors);
    const list = [...tensors.values()];
    const output = tensors.get("output") as Tensor;
    const known = this.#bound.get(output);
    if (known?.tensors.every((used, index) => used === list[index])) return known.groups;

    const made = groups.map(({ source, compiled, names }) => {
      const entries = source.bindings.map(({ binding, name, type }): GPUBindGroupEntry => {
        const bound = type === "uniform" ? undefined : tensors.get(names[name] ?? name);
        // With no keys there is no byte of k and v to bind; the params stand in for them, unread.
        if (!bound?.size) return { binding, resource: { buffer: params, size: LINEAR_PARAMS_BYTES } };
        return { binding, resource: { buffer: bound.buffer, ...bindingRange(bound) } };
      });
      return device.createBindGroup({ label, layout: compiled.layout, entries });
    });
    this.#bound.set(output, { tensors: list, groups: made });
    return made;
  }
}

/**
 * Compiles linear attention for a problem: keys and values are summed up in a state of D x Dv numbers a head, which
 * queries read, so that time is linear in the number of tokens and memory does not depend on it.
 *
 * ```
 * S = sum_j phi(k_j) v_j^T,   z = sum_j phi(k_j),   phi(x) = elu(x) + 1
 * O_i = S^T phi(q_i) / (phi(q_i).z)          over all keys, or over j <= i where causal
 * ```
 *
 * Source: Transformers are RNNs (arXiv 2006.16236). Update rules with decay and delta, and their defaults, are those of
 * ONNX LinearAttention-27: `updateRule`. Causal sums run in chunks, all of them at once (arXiv 2312.06635, section 4.2);
 * few tokens, delta rules, and decays of their own for each row of the state run token by token.
 *
 * States, sums and products are f32. A query that no key has any weight for gets output 0. A key past its entry's length
 * or hidden by `keyMask` leaves the state as it is, decay included, whatever it holds. The same inputs on the same
 * device give the same bits.
 *
 * For decoding, plan for one token with a `state` in place, and encode it for each token; for streaming, plan for a
 * segment of tokens likewise. A new state is all zeros.
 *
 * Rejects with FoveaError: `"argument"` and `"limit"` before the GPU sees anything; `"shader"`, `"device-lost"`,
 * `"out-of-memory"`.
 *
 * @example
 * const one = { shape: [1, 8, 1, 64] };
 * const state = tensor(device, [1, 8, 64, 64]);
 * const normalizer = tensor(device, [1, 8, 64]);
 * const decode = await planLinearAttention(device, { q: one, k: one, v: one, causal: true, state, normalizer });
 */
export async function planLinearAttention(
  device: GPUDevice,
  problem: LinearAttentionProblem,
): Promise<LinearAttentionPlan> {
  const { plan, allocated } = await preparePlan(device, problem);
  await allocated;
  return plan;
}

/** A plan, and a promise that rejects if its buffers could not be had: for callers with more to wait for. */
async function preparePlan(device: GPUDevice, problem: LinearAttentionProblem) {
  checkDevice(device);
  const resolved = resolveLinear(problem, isSoftware(device));
  const { label } = resolved;
  const given = operandsOf(device, problem, resolved);
  const spec = specialisation(device, problem, resolved, given);
  const segments = segmentsOf(resolved, spec);
  const { operands, owned, names } = withOwn(device, problem, resolved, given, segments.slots);
  try {
    const steps = linearSteps(resolved, spec, segments, operands, names);
    const { bytes, grids } = packSteps(steps, device.limits.maxComputeWorkgroupsPerDimension);
    const shared = {
      ...{ o: "output", key_mask: "keyMask", lengths: "kvLengths", next_normalizer: "nextNormalizer" },
      ...{ state: names.state, normalizer: names.normalizer },
    };
    const keys = steps.map(({ kernel, names: own }) => JSON.stringify([kernel, own]));
    const distinct = [...new Set(keys)];
    const sources = distinct.map((key) => {
      const [kernel, own] = JSON.parse(key) as [LinearKernel, LinearStep["names"]];
      return { source: linearKernel(kernel, spec), names: { ...shared, ...own } };
    });
    for (const { source } of sources) checkBindings(device, label, source.bindings);
    const compiled = await Promise.all(sources.map(({ source }) => compileKernel(device, source)));
    const { value: params, done } = guarded(device, label, () => {
      const usage = USAGE.UNIFORM | USAGE.STORAGE | USAGE.COPY_DST;
      const buffer = device.createBuffer({ label: `${label} params`, size: bytes.byteLength, usage });
      device.queue.writeBuffer(buffer, 0, bytes);
      return buffer;
    });
    const plan = LinearAttentionPlan.make({
      ...{ device, label, operands, owned, params },
      kernel: resolved.chunked ? "linear chunked" : "linear recurrent",
      bindable: new Set(given.keys()),
      groups: sources.map((source, index) => ({ ...source, compiled: compiled[index] })),
      dispatches: grids.map((grid, index) => ({ ...grid, group: distinct.indexOf(keys[index]) })),
    });
    const allocated = Promise.all([done, ...owned.map((made) => made.allocated)]);
    allocated.catch(() => plan.destroy());
    return { plan, allocated, resolved };
  } catch (error) {
    for (const made of owned) made.destroy();
    throw error;
  }
}

const WRITTEN: readonly string[] = ["output", "state", "normalizer", "presentState", "presentNormalizer"];

/** The tensors that a caller binds. */
function operandsOf(device: GPUDevice, problem: LinearAttentionProblem, { label, specs }: ResolvedLinear) {
  const operands = new Map<string, Operand>();
  for (const [name, spec] of specs) {
    checkBindingLimit(label, name, device, spec);
    const fallback = givenTensor(problem, name);
    const operand = { spec, base: bindingBase(device, spec), fallback, written: WRITTEN.includes(name) };
    if (fallback) checkOperand(`${label}: ${name}`, device, operand, fallback);
    operands.set(name, operand);
  }
  return operands;
}

/** The operands with the plan's own: lengths given as numbers, states that nobody keeps, states of chunks. */
function withOwn(
  device: GPUDevice,
  problem: LinearAttentionProblem,
  resolved: ResolvedLinear,
  given: Map<string, Operand>,
  slots: number,
) {
  const { label, batch, states, headDim, vDim, normalized, stateShape, normalizerShape, chunked } = resolved;
  const lengths = problem.kvLengths && resolveLengths(device, resolved, problem.kvLengths);
  if (lengths && !("values" in lengths)) given.set("kvLengths", lengths);
  const place = (inPlace: LinearTensor, after: LinearTensor) =>
    [inPlace, after].find((name) => given.has(name)) ?? `own ${inPlace}`;
  const names = { state: place("state", "presentState"), normalizer: place("normalizer", "presentNormalizer") };
  const operands = new Map(given);
  const owned: Tensor[] = [];
  const own = (name: string, shape: readonly number[], values?: readonly number[]) => {
    const spec = resolveSpec(label, { shape, dtype: values ? "i32" : "f32" });
    checkBindingLimit(label, name, device, spec);
    const made = tensor(device, shape, {
      dtype: spec.dtype,
      label: `${label} ${name}`,
      ...(values && { data: values }),
    });
    owned.push(made);
    operands.set(name, { spec, base: 0, fallback: made, written: !values });
  };
  // Last, when nothing of the caller's is wrong: there is nobody yet to free them.
  try {
    if (lengths && "values" in lengths) own("kvLengths", [batch], lengths.values);
    if (!given.has(names.state)) own(names.state, stateShape);
    if (normalized && !given.has(names.normalizer)) own(names.normalizer, normalizerShape);
    if (normalized && !chunked) own("nextNormalizer", normalizerShape);
    if (chunked) own("workspace", [batch, states, slots, 4 * stateVec4s(headDim, vDim)]);
  } catch (error) {
    for (const made of owned) made.destroy();
    throw error;
  }
  return { operands, owned, names };
}

/** Lengths as a tensor of the caller's, or as numbers to write down once. */
function resolveLengths(
  device: GPUDevice,
  { label, batch, seqKv }: ResolvedLinear,
  lengths: PerBatch,
): Operand | { readonly values: readonly number[] } {
  if (lengths instanceof Tensor) {
    const { shape, strides, offset, dtype } = lengths;
    check(
      (dtype === "i32" || dtype === "u32") &&
        shape.length === 1 &&
        shape[0] === batch &&
        (batch <= 1 || strides[0] === 1),
      "argument",
      () =>
        `${label}: kvLengths must be dense i32 or u32 [${batch}], got ${dtype} [${shape}] with strides [${strides}].`,
    );
    const spec: ResolvedSpec = { shape, strides, offset, dtype };
    const operand = { spec, base: bindingBase(device, spec), fallback: lengths, written: false };
    checkOperand(`${label}: kvLengths`, device, operand, lengths);
    return operand;
  }
  check(
    Array.isArray(lengths) &&
      lengths.length === batch &&
      lengths.every((length) => Number.isInteger(length) && length >= 0 && length <= seqKv),
    "argument",
    () =>
      `${label}: kvLengths must be ${batch} whole numbers from 0 to ${seqKv}, or a tensor, got ${JSON.stringify(lengths)}.`,
  );
  return { values: lengths };
}

function specialisation(
  device: GPUDevice,
  problem: LinearAttentionProblem,
  resolved: ResolvedLinear,
  operands: ReadonlyMap<string, Operand>,
): LinearSpecialisation {
  const { label, headDim, vDim, decayDim, elu, normalized, causal, delta, heads, states, seqKv } = resolved;
  const access = (name: string) => {
    const operand = operands.get(name);
    return operand ? accessOf(device, operand) : "dense";
  };
  const group = resolved.chunked ? 1 : heads / states;
  const sizes = { headDim, vDim, decayDim, group };
  // Of a chunked problem nothing runs token by token; its sizes may be too large for that.
  const tileSizes = resolved.chunked ? { headDim: 1, vDim: 1, decayDim: 0, group } : sizes;
  return {
    ...{ ...sizes, elu, normalized, causal, delta },
    ...{ q: access("q"), k: access("k"), v: access("v"), o: access("output") },
    ...{ decay: access("decay"), beta: access("beta") },
    ...{ lengths: problem.kvLengths !== undefined, mask: operands.has("keyMask") },
    rows: isSoftware(device) ? 4 : 8,
    recurrent: recurrentTile(label, tileSizes, seqKv),
  };
}

/** Options of {@link linearAttention}: those of a problem, with tensors where memory is meant. */
export interface LinearAttentionOptions extends LinearAttentionSettings {
  readonly decay?: Tensor;
  readonly beta?: Tensor;
  readonly keyMask?: Tensor;
  /** Where the output goes. Default: a new tensor, which is the caller's to destroy. */
  readonly output?: Tensor;
  /** The state before and after, in place, and z likewise. */
  readonly state?: Tensor;
  readonly normalizer?: Tensor;
  readonly pastState?: Tensor;
  readonly pastNormalizer?: Tensor;
  /** `true` for a new tensor with the state after, or where it goes. Default: none. */
  readonly presentState?: boolean | Tensor;
  /** Likewise. Comes with `presentState: true` where the attention is normalised. */
  readonly presentNormalizer?: boolean | Tensor;
}

export interface LinearAttentionResult {
  /** [B, max(H, Hkv), M, Dv], in the layout of the call. */
  readonly output: Tensor;
  /** [B, Hkv, D, Dv] f32, where it was asked for. */
  readonly presentState?: Tensor;
  /** [B, Hkv, D] f32, where the state was asked for and the attention is normalised. */
  readonly presentNormalizer?: Tensor;
}

/**
 * Linear attention on the GPU. See {@link planLinearAttention} for the formula, the rules and the shapes.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself. For decoding make a plan and
 * encode it: that waits for nothing and allocates nothing.
 *
 * @param q [B, H, M, D], f32, f16 or bf16, as also k and v, each its own; the output has the dtype of q by default
 * @param k [B, Hk, N, D]
 * @param v [B, Hkv, N, Dv]
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @example
 * const { output, presentState, presentNormalizer } = await linearAttention(q, k, v, { causal: true, presentState: true });
 */
export async function linearAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: LinearAttentionOptions = {},
): Promise<LinearAttentionResult> {
  const { label = "linearAttention" } = options;
  const { presentState, presentNormalizer, ...rest } = options;
  checkTensors(label, { q, k, v });
  const { normalized = options.updateRule === undefined } = options;
  const shape = [v.shape[0], v.shape[options.layout === "bmhd" ? 2 : 1], k.shape[3]];
  const asked = (given: boolean | Tensor | undefined, size: readonly number[]) =>
    given === true ? { shape: size } : given || undefined;
  const present = {
    presentState: asked(presentState, [...shape, v.shape[3]]),
    presentNormalizer: asked(presentNormalizer ?? (presentState === true && normalized), shape),
  };
  const problem = Object.fromEntries(
    Object.entries({ ...rest, ...present, q, k, v }).filter(([, given]) => given !== undefined),
  );
  const { plan, allocated, resolved } = await preparePlan(q.device, problem as unknown as LinearAttentionProblem);
  return runOnce(q.device, label, { plan, allocated }, [q, k, v], (make) => {
    const spec = resolved.specs.get("output") as ResolvedSpec;
    const output = options.output ?? make("output", resolved.outputShape, spec.dtype);
    return { output, ...presentOf(present, make) };
  });
}

/** The tensors of a state after, made where they were only asked for. */
function presentOf(
  asked: Readonly<Record<"presentState" | "presentNormalizer", Tensor | { shape: readonly number[] } | undefined>>,
  make: MakeResult,
) {
  const result = (name: "presentState" | "presentNormalizer") => {
    const given = asked[name];
    if (!given) return {};
    return { [name]: given instanceof Tensor ? given : make(name, given.shape) };
  };
  return { ...result("presentState"), ...result("presentNormalizer") };
}
