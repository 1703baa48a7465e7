// The gradients of attention: the plan and the one-line call.

import { type OptionNames, readOptions, type Taken } from "../../given.ts";
import { type FloatTensor, Tensor } from "../../gpu/tensor.ts";
import {
  checkTensors,
  type MakeResult,
  RUN_OPTIONS,
  type RunOptions,
  runOnce,
} from "../../plan/run.ts";
import { reorder } from "../../plan/specs.ts";
import { isCache } from "../cached.ts";
import type { AttentionBackwardBindings, AttentionBackwardPlan } from "./bindings.ts";
import { prepareBackward } from "./plan.ts";
import {
  type AttentionBackwardProblem,
  BACKWARD_PROBLEM,
  type ResolvedBackward,
  refuseCache,
} from "./problem.ts";
import type { ScoreGradientName } from "./score_problem.ts";
import type { SimilarityGradient, SimilarityGradients } from "./similarity_problem.ts";

/** Options of {@link attentionBackward}: those of attention, with what it gave. */
export interface AttentionBackwardOptions
  extends Omit<
      AttentionBackwardProblem,
      | "q"
      | "k"
      | "v"
      | "output"
      | "lse"
      | "dOutput"
      | "dLse"
      | "dQ"
      | "dK"
      | "dV"
      | ScoreGradientName
      | "dCaptures"
    >,
    RunOptions {
  /** [B, H, M, Dv]: what attention gave. */
  readonly output: Tensor;
  /** [B, H, M] f32: the log-sum-exp that attention gave beside it, which has to be asked for. */
  readonly lse: Tensor | undefined;
  /** [B, H, M, Dv]: the gradient of the output. */
  readonly dOutput: Tensor;
  /** [B, H, M] f32: the gradient of the log-sum-exp. Default: zeros. */
  readonly dLse?: Tensor;
  /** Where the gradient of q goes. Default: a new tensor, which is the caller's to destroy. */
  readonly dQ?: Tensor;
  /** Where the gradient of k goes. Default: a new tensor. */
  readonly dK?: Tensor;
  /** Where the gradient of v goes. Default: a new tensor. */
  readonly dV?: Tensor;
  /**
   * `true` for a new tensor with the gradient of `bias`, of its shape, or the tensor that it goes
   * to, as for those below. Of an axis of size 1, or one that is absent, it is the sum over it.
   * Default: not computed.
   */
  readonly dBias?: boolean | Tensor;
  /** The gradient of `alibiSlopes`, [H] or [B, H] as they are. Default: not computed. */
  readonly dAlibiSlopes?: boolean | Tensor;
  /** The gradient of the table of `relativeBias`, [buckets, H]. Default: not computed. */
  readonly dRelativeBias?: boolean | Tensor;
  /** The gradient of `sinks`, [H]. Default: not computed. */
  readonly dSinks?: boolean | Tensor;
  /** The gradient of `temperature`, [H]. Default: not computed. */
  readonly dTemperature?: boolean | Tensor;
  /** The gradient of `logTemperature`, [H]. Default: not computed. */
  readonly dLogTemperature?: boolean | Tensor;
  /**
   * The gradients of what the score function captures, by its names: `true` for a new tensor, or
   * where the gradient goes. Default none.
   */
  readonly dCaptures?: Readonly<Record<string, boolean | Tensor>>;
}

/** The names of the options. */
export const BACKWARD_OPTIONS: OptionNames<AttentionBackwardOptions> =
  withoutTensors(BACKWARD_PROBLEM);

function withoutTensors({ q, k, v, ...options }: typeof BACKWARD_PROBLEM) {
  return { ...options, ...RUN_OPTIONS };
}

/** The gradients. Those of what options and similarity hold are there if they were asked for. */
export interface AttentionGradients extends SimilarityGradients<FloatTensor> {
  /** [B, H, M, D], in the layout of the call and the dtype of q. */
  readonly dQ: FloatTensor;
  /** [B, Hkv, N, D], of the dtype of k. */
  readonly dK: FloatTensor;
  /** [B, Hkv, N, Dv], of the dtype of v. */
  readonly dV: FloatTensor;
  /** Of those that were asked for: the shape of the captured tensor, and [1] for a number. */
  readonly dCaptures: Readonly<Record<string, Tensor<"f32">>>;
  /** Of the shape of `bias`. */
  readonly dBias?: Tensor<"f32">;
  /** [H] or [B, H], as `alibiSlopes` are. */
  readonly dAlibiSlopes?: Tensor<"f32">;
  /** [buckets, H] */
  readonly dRelativeBias?: Tensor<"f32">;
  /** [H], as are the two below. */
  readonly dSinks?: Tensor<"f32">;
  readonly dTemperature?: Tensor<"f32">;
  readonly dLogTemperature?: Tensor<"f32">;
}

/**
 * Compiles the gradients of attention for a problem: those of L = sum(output * dOutput) + sum(lse *
 * dLse), for the output and the log-sum-exp that attention with the same options gave.
 *
 * ```
 * P = exp(S - LSE),   dP = dO V^T,   delta = rowsum(dO * O) - dLSE,   dS = P (dP - delta)
 * dV = P^T dO,   dQ = scale * dS K,   dK = scale * dS^T Q
 * dBias = sum of dS,   dSinks = -sum exp(sink - LSE) delta
 * ```
 *
 * Source: FlashAttention-2 (arXiv 2307.08691), algorithm 2, in two passes. Scores are computed
 * anew: nothing of size M x N is in memory, and two numbers a query row are. Sums are f32 and have
 * one order, so that the same inputs on the same device give the same bits. A key that a query does
 * not see has no part in the gradients of either, whatever both hold.
 *
 * Rejects with FoveaError: `"argument"` and `"limit"` before the GPU sees anything; `"shader"`,
 * `"device-lost"`, `"out-of-memory"`.
 *
 * @example
 * const backward = await planAttentionBackward(device, { q, k, v, causal: true });
 * backward.encode(encoder, { output, lse, dOutput, dQ, dK, dV });
 */
export async function planAttentionBackward(
  device: GPUDevice,
  problem: AttentionBackwardProblem,
): Promise<AttentionBackwardPlan> {
  const taken = await readOptions("attentionBackward", problem, BACKWARD_PROBLEM);
  const { plan, allocated } = await prepareBackward(device, taken);
  await allocated;
  return plan;
}

/**
 * The gradients of attention on the GPU. See {@link planAttentionBackward} for the formula.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param q [B, H, M, D], f32, f16 or bf16, as are all others but lse and dLse
 * @param k [B, Hkv, N, D]
 * @param v [B, Hkv, N, Dv]
 *
 * @example
 * const { output, lse } = await attention(q, k, v, { causal: true, lse: true });
 * const { dQ, dK, dV } = await attentionBackward(q, k, v, { causal: true, output, lse, dOutput });
 */
export async function attentionBackward(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionBackwardOptions,
): Promise<AttentionGradients> {
  const name = "attentionBackward";
  refuseCache(name, isCache(k));
  checkTensors(name, { q, k, v });
  const taken = await readOptions(name, options, BACKWARD_OPTIONS);
  const { label = name, output, lse, dOutput, dLse } = taken;
  checkTensors(label, { output, lse, dOutput }, { dLse });
  const { device } = q;
  const prepared = await prepareBackward(device, { ...taken, q, k, v, lse: lse as Tensor });
  const results = await runOnce(device, label, prepared, taken, (make) =>
    gradientsInto(taken, prepared.resolved, make),
  );
  return results as AttentionGradients;
}

/** The tensors that the results of a one-line call go to: those of its options, or new ones. */
export function gradientsInto(
  options: Pick<
    Taken<AttentionBackwardOptions>,
    "dQ" | "dK" | "dV" | SimilarityGradient | ScoreGradientName
  >,
  resolved: ResolvedBackward,
  make: MakeResult,
): AttentionBackwardBindings {
  const result = (of: "dQ" | "dK" | "dV") =>
    options[of] ?? make(of, reorder(resolved[of], resolved.layout).shape, resolved[of].dtype);
  const asked: Record<string, Tensor> = {};
  for (const [name, { shape, dtype }] of Object.entries(resolved.similarityGradients)) {
    const given = options[name as SimilarityGradient];
    asked[name] = given instanceof Tensor ? given : make(name, shape, dtype);
  }
  for (const { name, spec } of resolved.scoreGradients) {
    const given = options[name];
    asked[name] = given instanceof Tensor ? given : make(name, spec.shape);
  }
  const captured = resolved.dCaptures.map(({ name, spec, given }) => [
    name,
    given === true ? make(`dCaptures.${name}`, spec.shape) : (given as Tensor),
  ]);
  return {
    dQ: result("dQ"),
    dK: result("dK"),
    dV: result("dV"),
    dCaptures: Object.fromEntries(captured),
    ...asked,
  };
}
