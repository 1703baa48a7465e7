// Linear attention: from a problem to its plan, and the one-liner on top of it.

import { readOptions } from "../given.ts";
import { checkDevice, paramsBuffer, settle } from "../gpu/buffers.ts";
import { isSoftware } from "../gpu/device.ts";
import { checkBindings, compileKernel } from "../gpu/pipelines.ts";
import { type FloatTensor, Tensor } from "../gpu/tensor.ts";
import {
  type LinearKernel,
  type LinearSpecialisation,
  linearKernel,
  recurrentTile,
} from "../kernels/linear.ts";
import { accessOf } from "../plan/access.ts";
import type { Operand } from "../plan/operand.ts";
import { memoryOf } from "../plan/operand_checks.ts";
import {
  checkTensors,
  type MakeResult,
  RUN_OPTIONS,
  type RunOptions,
  runOnce,
} from "../plan/run.ts";
import type { ResolvedSpec } from "../plan/specs.ts";
import { linearOperands, withOwn } from "./memory.ts";
import {
  LINEAR_PROBLEM,
  type LinearAttentionProblem,
  type LinearAttentionSettings,
} from "./options.ts";
import { LinearAttentionPlan } from "./plan.ts";
import { type ResolvedLinear, resolveLinear } from "./problem.ts";
import { type LinearStep, linearSteps, packSteps, segmentsOf } from "./steps.ts";

/**
 * Compiles linear attention for a problem: keys and values are summed up in a state of D x Dv
 * numbers a head, which queries read, so that time is linear in the number of tokens and memory
 * does not depend on it.
 *
 * ```
 * S = sum_j phi(k_j) v_j^T,   z = sum_j phi(k_j),   phi(x) = elu(x) + 1
 * O_i = S^T phi(q_i) / (phi(q_i).z)          over all keys, or over j <= i where causal
 * ```
 *
 * Source: Transformers are RNNs (arXiv 2006.16236). Update rules with decay and delta, and their
 * defaults, are those of ONNX LinearAttention-27: `updateRule`. Causal sums run in chunks, all of
 * them at once (arXiv 2312.06635, section 4.2); few tokens, delta rules, and decays of their own
 * for each row of the state run token by token.
 *
 * States, sums and products are f32, and so is phi: of numbers below about -87 it is 0. A query
 * that no key has any weight for gets output 0. NaN in q, k, v or a decay is NaN in the outputs
 * that it counts for. A key past its entry's length or hidden by `keyMask` leaves the state as it
 * is, decay included, whatever it holds. The same inputs on the same device give the same bits.
 *
 * For decoding, plan for one token with a `state` in place, and encode it for each token; for
 * streaming, plan for a segment of tokens likewise. A new state is all zeros.
 *
 * Rejects with FoveaError: `"argument"` and `"limit"` before the GPU sees anything; `"shader"`,
 * `"device-lost"`, `"out-of-memory"`.
 *
 * @example
 * const one = { shape: [1, 8, 1, 64] };
 * const state = tensor(device, [1, 8, 64, 64]);
 * const normalizer = tensor(device, [1, 8, 64]);
 * const decode = await planLinearAttention(device, {
 *   q: one,
 *   k: one,
 *   v: one,
 *   causal: true,
 *   state,
 *   normalizer,
 * });
 */
export async function planLinearAttention(
  device: GPUDevice,
  problem: LinearAttentionProblem,
): Promise<LinearAttentionPlan> {
  const taken = await readOptions("linearAttention", problem, LINEAR_PROBLEM);
  const { plan, allocated } = await preparePlan(device, taken as LinearAttentionProblem);
  await allocated;
  return plan;
}

/**
 * A plan, and a promise that rejects if its buffers could not be had: for callers with more to wait
 * for.
 */
async function preparePlan(device: GPUDevice, problem: LinearAttentionProblem) {
  checkDevice(device);
  const resolved = resolveLinear(problem, isSoftware(device));
  const { label } = resolved;
  const given = linearOperands(device, problem, resolved);
  const spec = specialisation(device, problem, resolved, given);
  const segments = segmentsOf(resolved, spec);
  const { operands, owned, names } = withOwn(device, problem, resolved, given, segments.slots);
  try {
    const steps = linearSteps(resolved, spec, segments, operands, names);
    const { bytes, grids } = packSteps(
      steps,
      (kernel) => linearKernel(kernel, spec),
      device.limits.maxComputeWorkgroupsPerDimension,
    );
    const shared = {
      o: "output",
      key_mask: "keyMask",
      lengths: "kvLengths",
      next_normalizer: "nextNormalizer",
      state: names.state,
      normalizer: names.normalizer,
    };
    const keys = steps.map(({ kernel, names: own }) => JSON.stringify([kernel, own]));
    const distinct = [...new Set(keys)];
    const sources = distinct.map((key) => {
      const [kernel, own] = JSON.parse(key) as [LinearKernel, LinearStep["names"]];
      return { source: linearKernel(kernel, spec), names: { ...shared, ...own } };
    });
    for (const { source } of sources) checkBindings(device, label, source.bindings);
    const compiled = await Promise.all(sources.map(({ source }) => compileKernel(device, source)));
    const { value: params, done } = paramsBuffer(device, label, [bytes]);
    const plan = LinearAttentionPlan.make({
      device,
      label,
      operands,
      owned,
      params,
      kernel: resolved.chunked ? "linear chunked" : "linear recurrent",
      bindable: new Set(given.keys()),
      groups: sources.map((source, index) => ({ ...source, compiled: compiled[index] })),
      dispatches: grids.map((grid, index) => ({ ...grid, group: distinct.indexOf(keys[index]) })),
    });
    const allocated = settle([done, ...memoryOf(operands)]);
    allocated.catch(() => plan.destroy());
    return { plan, allocated, resolved };
  } catch (error) {
    for (const made of owned) made.destroy();
    throw error;
  }
}

function specialisation(
  device: GPUDevice,
  problem: LinearAttentionProblem,
  resolved: ResolvedLinear,
  operands: ReadonlyMap<string, Operand>,
): LinearSpecialisation {
  const { label, headDim, vDim, decayDim, elu, normalized, causal, delta, heads, states, seqKv } =
    resolved;
  const access = (name: string) => {
    const operand = operands.get(name);
    return operand ? accessOf(device, operand) : "dense";
  };
  const group = resolved.chunked ? 1 : heads / states;
  const sizes = { headDim, vDim, decayDim, group };
  // Of a chunked problem nothing runs token by token; its sizes may be too large for that.
  const tileSizes = resolved.chunked ? { headDim: 1, vDim: 1, decayDim: 0, group } : sizes;
  return {
    ...sizes,
    elu,
    normalized,
    causal,
    delta,
    q: access("q"),
    k: access("k"),
    v: access("v"),
    o: access("output"),
    decay: access("decay"),
    beta: access("beta"),
    lengths: problem.kvLengths !== undefined,
    mask: operands.has("keyMask"),
    rows: isSoftware(device) ? 4 : 8,
    recurrent: recurrentTile(label, tileSizes, seqKv),
  };
}

/** Options of {@link linearAttention}: those of a problem, with tensors where memory is meant. */
export interface LinearAttentionOptions extends LinearAttentionSettings, RunOptions {
  /** As in {@link LinearAttentionProblem}, in memory. */
  readonly decay?: Tensor;
  /** As in {@link LinearAttentionProblem}, in memory. */
  readonly beta?: Tensor;
  /** As in {@link LinearAttentionProblem}, in memory. */
  readonly keyMask?: Tensor;
  /** Where the output goes. Default: a new tensor, which is the caller's to destroy. */
  readonly output?: Tensor;
  /** The state before and after, in place, and z likewise. */
  readonly state?: Tensor;
  /** z before and after, in place, as in {@link LinearAttentionProblem}. */
  readonly normalizer?: Tensor;
  /** The state of what came before, as in {@link LinearAttentionProblem}. */
  readonly pastState?: Tensor;
  /** The normaliser of what came before, as in {@link LinearAttentionProblem}. */
  readonly pastNormalizer?: Tensor;
  /** `true` for a new tensor with the state after, or where it goes. Default: none. */
  readonly presentState?: boolean | Tensor;
  /** Likewise. Comes with `presentState: true` where the attention is normalised. */
  readonly presentNormalizer?: boolean | Tensor;
}

export interface LinearAttentionResult {
  /** [B, max(H, Hkv), M, Dv], in the layout of the call. */
  readonly output: FloatTensor;
  /** [B, Hkv, D, Dv] f32, where it was asked for. */
  readonly presentState?: Tensor<"f32">;
  /** [B, Hkv, D] f32, where the state was asked for and the attention is normalised. */
  readonly presentNormalizer?: Tensor<"f32">;
}

/** The names of the options. */
const { q: _q, k: _k, v: _v, ...LINEAR_OPTIONS } = { ...LINEAR_PROBLEM, ...RUN_OPTIONS };

/**
 * Linear attention on the GPU. See {@link planLinearAttention} for the formula, the rules and the
 * shapes.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself. For
 * decoding make a plan and encode it: that waits for nothing and allocates nothing.
 *
 * @param q [B, H, M, D], f32, f16 or bf16, as also k and v, each its own; the output has the dtype
 *   of q by default
 * @param k [B, Hk, N, D]
 * @param v [B, Hkv, N, Dv]
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @example
 * const { output, presentState, presentNormalizer } = await linearAttention(q, k, v, {
 *   causal: true,
 *   presentState: true,
 * });
 */
export async function linearAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  asked: LinearAttentionOptions = {},
): Promise<LinearAttentionResult> {
  const options = await readOptions("linearAttention", asked, LINEAR_OPTIONS);
  const { label = "linearAttention" } = options;
  const { presentState, presentNormalizer, encoder: _, ...rest } = options;
  checkTensors(label, { q, k, v });
  const { normalized = options.updateRule === undefined } = options;
  const shape = [v.shape[0], v.shape[options.layout === "bmhd" ? 2 : 1], k.shape[3]];
  const wanted = (given: boolean | Tensor | undefined, size: readonly number[]) =>
    given === true ? { shape: size } : given || undefined;
  const present = {
    presentState: wanted(presentState, [...shape, v.shape[3]]),
    presentNormalizer: wanted(presentNormalizer ?? (presentState === true && normalized), shape),
  };
  const problem = Object.fromEntries(
    Object.entries({ ...rest, ...present, q, k, v }).filter(([, given]) => given !== undefined),
  );
  const { plan, allocated, resolved } = await preparePlan(
    q.device,
    problem as unknown as LinearAttentionProblem,
  );
  return runOnce(q.device, label, { plan, allocated }, options, (make) => {
    const spec = resolved.specs.get("output") as ResolvedSpec;
    const output = options.output ?? make("output", resolved.outputShape, spec.dtype);
    return { output, ...presentOf(present, make) };
  }) as Promise<LinearAttentionResult>;
}

/** The tensors of a state after, made where they were only asked for. */
function presentOf(
  asked: Readonly<
    Record<"presentState" | "presentNormalizer", Tensor | { shape: readonly number[] } | undefined>
  >,
  make: MakeResult,
) {
  const result = (name: "presentState" | "presentNormalizer") => {
    const given = asked[name];
    if (!given) return {};
    return { [name]: given instanceof Tensor ? given : make(name, given.shape) };
  };
  return { ...result("presentState"), ...result("presentNormalizer") };
}
