// Linear attention: from a problem to its plan, and the one-liner on top of it.

import { readOptions, type Taken } from "../given.ts";
import { checkBindings } from "../gpu/pipelines.ts";
import { type FloatTensor, Tensor } from "../gpu/tensor.ts";
import { LINEAR_PARAMS, linearKernel } from "../kernels/linear.ts";
import type { Operands } from "../plan/operand.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../plan/operation.ts";
import { checkTensors, type RunOptions } from "../plan/run.ts";
import { linearTensors } from "./memory.ts";
import {
  LINEAR_PROBLEM,
  type LinearAttentionProblem,
  type LinearAttentionSettings,
} from "./options.ts";
import { type LinearAttentionBindings, type LinearAttentionPlan, linearHooks } from "./plan.ts";
import { type ResolvedLinear, resolveLinear } from "./problem.ts";
import { specialisation } from "./specialisation.ts";
import { statePlaces } from "./states.ts";
import { linearSteps, segmentsOf } from "./steps.ts";

/**
 * Compiles linear attention for a problem: keys and values are summed up in a state of D x Dv
 * numbers a head, which queries read. So time is linear in the number of tokens, and memory does
 * not depend on it.
 *
 * ```
 * S = sum_j phi(k_j) v_j^T,   z = sum_j phi(k_j),   phi(x) = elu(x) + 1
 * O_i = S^T phi(q_i) / (phi(q_i).z)          over all keys, or over j <= i if causal
 * ```
 *
 * Source: Transformers are RNNs (arXiv 2006.16236). The option `updateRule` has rules with decay
 * and delta; they and their defaults are those of ONNX LinearAttention-27. Causal sums run in
 * chunks, all of them at once (arXiv 2312.06635, section 4.2); few tokens, delta rules, and decays
 * that differ between the rows of a state run token by token.
 *
 * States, sums and products are f32, and so is phi, which is 0 for numbers below about -87. A query
 * for which no key has any weight gets output 0. NaN in q, k, v or a decay is NaN in the outputs
 * that depend on it. A key past its entry's length or hidden by `keyMask` leaves the state as it
 * is, decay included, whatever it holds. The same inputs on the same device give the same bits.
 *
 * For decoding, plan for one token with a `state` in place, and encode it for each token; for
 * streaming, do the same with a segment of tokens. A new state is all zeros.
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
export function planLinearAttention(
  device: GPUDevice,
  problem: LinearAttentionProblem,
): Promise<LinearAttentionPlan> {
  return LINEAR.plan(device, problem);
}

const LINEAR = operation<
  LinearAttentionProblem,
  LinearAttentionBindings,
  ResolvedLinear,
  LinearAttentionResult
>({
  name: "linearAttention",
  problem: LINEAR_PROBLEM,
  resolve: resolveLinear,
  tensors: linearTensors,
  kernel,
  results: ({ specs }) => ({
    output: specs.get("output"),
    presentState: specs.get("presentState"),
    presentNormalizer: specs.get("presentNormalizer"),
  }),
  hooks: (resolved, { owned }) => linearHooks(resolved, owned),
});

function kernel(resolved: ResolvedLinear, caller: Caller, operands: Operands): Stage[] {
  const { label, device } = caller;
  const spec = specialisation(resolved, caller);
  const places = statePlaces(resolved.specs);
  const steps = linearSteps(resolved, spec, segmentsOf(resolved, spec), operands, places);
  const shared = {
    o: "output",
    key_mask: "keyMask",
    lengths: "kvLengths",
    next_normalizer: "nextNormalizer",
    ...places,
  };
  const firsts = new Map<string, number>();
  const stages = steps.map(({ kernel, names, workgroups, params }, index): Stage => {
    const key = JSON.stringify([kernel, names]);
    const boundLike = firsts.get(key);
    if (boundLike === undefined) firsts.set(key, index);
    return {
      source: linearKernel(kernel, spec),
      names: { ...shared, ...names },
      params: { struct: LINEAR_PARAMS, values: { ...params, workgroups } },
      workgroups,
      boundLike,
    };
  });
  for (const { bindings } of new Set(stages.map(({ source }) => source)))
    checkBindings(device, label, bindings);
  return stages;
}

/** Options of {@link linearAttention}: those of a problem, with tensors in place of specs. */
export interface LinearAttentionOptions extends LinearAttentionSettings, RunOptions {
  /** As in {@link LinearAttentionProblem}, in memory. */
  readonly decay?: Tensor;
  /** As in {@link LinearAttentionProblem}, in memory. */
  readonly beta?: Tensor;
  /** As in {@link LinearAttentionProblem}, in memory. */
  readonly keyMask?: Tensor;
  /** Where the output goes. Default: a new tensor, which is the caller's to destroy. */
  readonly output?: Tensor;
  /** The state before and after, in place, as in {@link LinearAttentionProblem}. */
  readonly state?: Tensor;
  /** z before and after, in place, as in {@link LinearAttentionProblem}. */
  readonly normalizer?: Tensor;
  /** The state of what came before, as in {@link LinearAttentionProblem}. */
  readonly pastState?: Tensor;
  /** The normaliser of what came before, as in {@link LinearAttentionProblem}. */
  readonly pastNormalizer?: Tensor;
  /** `true` for a new tensor with the state after, or the tensor that it goes to. Default: none. */
  readonly presentState?: boolean | Tensor;
  /**
   * `true` for a new tensor with z after, or the tensor that it goes to. Default: true with
   * `presentState: true` if the attention is normalised, else none.
   */
  readonly presentNormalizer?: boolean | Tensor;
}

export interface LinearAttentionResult {
  /** [B, max(H, Hkv), M, Dv], in the layout of the call. */
  readonly output: FloatTensor;
  /** [B, Hkv, D, Dv] f32, if it was asked for. */
  readonly presentState?: Tensor<"f32">;
  /** [B, Hkv, D] f32, if the state was asked for and the attention is normalised. */
  readonly presentNormalizer?: Tensor<"f32">;
}

/** The names of the options. */
const LINEAR_OPTIONS = optionsBeside(LINEAR_PROBLEM, "q", "k", "v");

/**
 * Linear attention on the GPU. See {@link planLinearAttention} for the formula, the rules and the
 * shapes.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself. For
 * decoding make a plan and encode it: that waits for nothing and allocates nothing.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param q [B, H, M, D], f32, f16 or bf16, as are k and v, each with its own dtype; the output has
 * the dtype of q by default
 * @param k [B, Hk, N, D]
 * @param v [B, Hkv, N, Dv]
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
  const { presentState, presentNormalizer, encoder, ...rest } = options;
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
  ) as unknown as Taken<LinearAttentionProblem>;
  return LINEAR.run({
    device: q.device,
    name: "linearAttention",
    problem,
    options: {
      encoder,
      output: options.output,
      presentState: presentState instanceof Tensor ? presentState : undefined,
      presentNormalizer: presentNormalizer instanceof Tensor ? presentNormalizer : undefined,
    },
  });
}
