// The gradients of linear attention: the plan, and the one-liner on top of it.

import { readOptions, type Taken } from "../given.ts";
import { checkBindings } from "../gpu/pipelines.ts";
import type { FloatTensor, Tensor } from "../gpu/tensor.ts";
import type { Operands } from "../plan/operand.ts";
import { type Caller, operation, optionsBeside } from "../plan/operation.ts";
import { boundByName, type Plan } from "../plan/plan.ts";
import { checkTensors, type RunOptions } from "../plan/run.ts";
import { backwardTensors } from "./backward_memory.ts";
import {
  LINEAR_BACKWARD_PROBLEM,
  type LinearAttentionBackwardProblem,
  type LinearAttentionBackwardSettings,
  type LinearBackwardTensor,
} from "./backward_options.ts";
import { type ResolvedLinearBackward, resolveLinearBackward } from "./backward_problem.ts";
import { backwardStages } from "./backward_steps.ts";

/**
 * Memory for one run of a plan: tensors that look as the plan was told. Those that it was made with
 * are the default.
 */
export type LinearAttentionBackwardBindings = {
  readonly [Name in LinearBackwardTensor | "kvLengths"]?: Tensor;
};

/** Compiled gradients of linear attention. Make them with {@link planLinearAttentionBackward}. */
export type LinearAttentionBackwardPlan = Plan<LinearAttentionBackwardBindings>;

/**
 * Compiles the gradients of linear attention, for every update rule and option of
 * {@link planLinearAttention}. With the attention's o = S^T phi(q) / w, w = phi(q).z, or
 * o = scale S^T phi(q), and the state S and normaliser z that a query reads:
 *
 * ```
 * ds = do / w, or scale do                     dw = -do.o / w
 * dphi(q) = S ds + dw z                        dS <- dS + phi(q) ds^T,  dz <- dz + dw phi(q)
 * ```
 *
 * and then, from the last token to the first, u being what a token writes, h = S^T phi(k) what a
 * delta rule takes off, and S the decayed state before the token writes:
 *
 * ```
 * du = dS^T phi(k)                             dphi(k) = dS u + dz + S dh,  dh = -beta du
 * dv = beta du, or du                          dbeta = du.(v - h)
 * dS <- dS + phi(k) dh^T                       dg = the sum of S * dS + z * dz, of its row or all
 * dS <- exp(g) dS,  dz <- exp(g) dz
 * ```
 *
 * Source: the equations of the attention, differentiated; the chunks are those of GLA (arXiv
 * 2312.06635), section 4. States are computed again at the boundaries of chunks of 64 tokens, or of
 * 16 if the gradient of a decay is asked for; nothing is kept of the attention's own run. All
 * chunks run at once, but for delta rules, whose states are computed token by token.
 *
 * Memory: two states for each chunk, and rows of parts for each token, in segments of about 64 MiB
 * (`workspaceBytes`) one after the other; beside them one state for each segment and, if the
 * attention is normalised, 8 bytes for each query and head. No token has a state in memory.
 *
 * Sums and products are f32, and gradients are rounded once, when they are written. A token that
 * `keyMask` or `kvLengths` leave out has gradients 0 and is never read; its query still reads. A
 * query for which no key has any weight gives and gets no gradient. The same inputs on the same
 * device give the same bits.
 *
 * Rejects with FoveaError: `"argument"` and `"limit"` before the GPU sees anything; `"shader"`,
 * `"device-lost"`, `"out-of-memory"`.
 *
 * @example
 * const plan = await planLinearAttentionBackward(device, {
 *   q: { shape: [1, 8, 1024, 64] },
 *   k: { shape: [1, 8, 1024, 64] },
 *   v: { shape: [1, 8, 1024, 64] },
 *   dOutput: { shape: [1, 8, 1024, 64] },
 *   causal: true,
 * });
 * plan.encode(encoder, { q, k, v, dOutput, dQ, dK, dV });
 */
export function planLinearAttentionBackward(
  device: GPUDevice,
  problem: LinearAttentionBackwardProblem,
): Promise<LinearAttentionBackwardPlan> {
  return LINEAR_BACKWARD.plan(device, problem);
}

const LINEAR_BACKWARD = operation<
  LinearAttentionBackwardProblem,
  LinearAttentionBackwardBindings,
  ResolvedLinearBackward,
  LinearAttentionBackwardResult
>({
  name: "linearAttentionBackward",
  problem: LINEAR_BACKWARD_PROBLEM,
  resolve: resolveLinearBackward,
  tensors: backwardTensors,
  kernel,
  results: ({ specs, wanted }) =>
    Object.fromEntries([...wanted].map((name) => [name, specs.get(name)])),
  hooks: ({ specs, lengths }) => {
    const bindable = new Set<string>(specs.keys());
    if (lengths === "bound") bindable.add("kvLengths");
    return {
      kernel: "linear backward",
      bindable,
      boundBy: (bindings, name) => (bindable.has(name) ? boundByName(bindings, name) : undefined),
    };
  },
});

function kernel(resolved: ResolvedLinearBackward, caller: Caller, operands: Operands) {
  const stages = backwardStages(resolved, caller, operands);
  for (const { bindings } of new Set(stages.map(({ source }) => source)))
    checkBindings(caller.device, caller.label, bindings);
  return stages;
}

/**
 * Options of {@link linearAttentionBackward}: those of a problem, with tensors in place of specs.
 * Each gradient goes into a new tensor, which is the caller's to destroy, or into the one that is
 * given under its name.
 */
export interface LinearAttentionBackwardOptions
  extends LinearAttentionBackwardSettings,
    RunOptions,
    Omit<LinearAttentionBackwardBindings, "q" | "k" | "v" | "dOutput" | "kvLengths"> {
  /** Gradient of the output, [B, max(H, Hkv), M, Dv] f32, f16 or bf16. */
  readonly dOutput: Tensor;
}

/** The gradients that were asked for. */
export interface LinearAttentionBackwardResult {
  /** [B, H, M, D], in the layout of the call, as are the next four; by default of q's dtype. */
  readonly dQ?: FloatTensor;
  /** [B, Hk, N, D] */
  readonly dK?: FloatTensor;
  /** [B, Hkv, N, Dv] */
  readonly dV?: FloatTensor;
  /** [B, Hkv, N, 1] or [B, Hkv, N, D], if there is a decay. */
  readonly dDecay?: FloatTensor;
  /** [B, Hkv | 1, N, 1], if there is a beta. */
  readonly dBeta?: FloatTensor;
  /** [B, Hkv, D, Dv] f32, if there was a state before, or if it was asked for. */
  readonly dPastState?: Tensor<"f32">;
  /** [B, Hkv, D] f32, likewise, if the attention is normalised. */
  readonly dPastNormalizer?: Tensor<"f32">;
}

/** The names of the options. */
const LINEAR_BACKWARD_OPTIONS = optionsBeside(LINEAR_BACKWARD_PROBLEM, "q", "k", "v");

/**
 * The gradients of linear attention on the GPU, from what the attention was called with and the
 * gradient of its output. See {@link planLinearAttentionBackward} for the formulas, the memory and
 * the shapes.
 *
 * Resolves once the GPU has accepted the work; `dQ.read()` waits for the result itself. Rejects
 * with FoveaError, and then has allocated nothing.
 *
 * @param q [B, H, M, D], f32, f16 or bf16, as are k, v and dOutput, each with its own dtype
 * @param k [B, Hk, N, D]
 * @param v [B, Hkv, N, Dv]
 *
 * @example
 * const { dQ, dK, dV } = await linearAttentionBackward(q, k, v, { causal: true, dOutput });
 */
export async function linearAttentionBackward(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  asked: LinearAttentionBackwardOptions,
): Promise<LinearAttentionBackwardResult> {
  const options = await readOptions("linearAttentionBackward", asked, LINEAR_BACKWARD_OPTIONS);
  const { encoder, ...rest } = options;
  const { label = "linearAttentionBackward", dOutput } = rest;
  checkTensors(label, { q, k, v, dOutput });
  const { dQ, dK, dV, dDecay, dBeta, dPastState, dPastNormalizer } = rest;
  return LINEAR_BACKWARD.run({
    device: q.device,
    name: "linearAttentionBackward",
    problem: { ...rest, q, k, v } as Taken<LinearAttentionBackwardProblem>,
    options: { encoder, dQ, dK, dV, dDecay, dBeta, dPastState, dPastNormalizer },
  });
}
