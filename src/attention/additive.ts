// Additive attention under its own name: attention with that similarity.

import type { OptionNames } from "../given.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { takeOptions } from "../options.ts";
import type { AdditiveSimilarity } from "../scores/options.ts";
import {
  ATTENTION_OPTIONS,
  type AttentionOptions,
  type AttentionResult,
  attention,
} from "./attention.ts";
import type { AttentionPlan } from "./bindings.ts";
import { planAttention } from "./plan_attention.ts";
import { ATTENTION_PROBLEM, type AttentionProblem } from "./problem.ts";

/** The layer between a query and a key: vector, innerBias, innerScale, normalize, gain. */
export type AdditiveLayer = Omit<AdditiveSimilarity, "kind">;

/** Options of {@link additiveAttention}: those of attention, and the layer. */
export interface AdditiveOptions extends Omit<AttentionOptions, "similarity">, AdditiveLayer {}

/** A problem of {@link planAdditiveAttention}: one of attention, and the layer. */
export interface AdditiveProblem extends Omit<AttentionProblem, "similarity">, AdditiveLayer {}

/**
 * Compiles additive attention (Bahdanau) for a problem: a checked, reusable recipe without any
 * memory of size M x N, let alone M x N x D. Options, rules and results are those of
 * {@link planAttention}; only the scores differ.
 *
 * ```
 * s[b,h,i,j] = scale * sum_d vector[h,d] tanh(inner)
 * inner = innerScale * (q[b,h,i,d] + k[b,g,j,d]) + innerBias[h,d]
 * ```
 *
 * q and k are projected already, q' = W_q q and k' = W_k k. The scale is 1 by default.
 *
 * On software adapters a plan for many queries computes the exponentials of the keys in a separate
 * pass: that is one more dispatch, and scratch memory of the size of dense keys of f32
 * (`workspaceBytes`).
 *
 * Source: Neural Machine Translation by Jointly Learning to Align and Translate (arXiv 1409.0473),
 * appendix A.1.2.
 *
 * Rejects with FoveaError: `"argument"` and `"limit"` before the GPU sees anything; `"shader"`,
 * `"device-lost"`, `"out-of-memory"`.
 *
 * @example
 * const plan = await planAdditiveAttention(device, { q, k, v, vector, innerBias });
 * plan.encode(encoder, { output });
 */
export async function planAdditiveAttention(
  device: GPUDevice,
  problem: AdditiveProblem,
): Promise<AttentionPlan> {
  return planAttention(
    device,
    withLayer(takeOptions(LABEL, problem, ADDITIVE_PROBLEM)) as AttentionProblem,
  );
}

const LABEL = "additiveAttention";

/** The names of all members of a problem, and of all options. */
const LAYER: OptionNames<AdditiveLayer> = {
  vector: "any",
  innerBias: "any",
  innerScale: "number",
  normalize: "boolean",
  gain: "any",
};
const { similarity: _p, ...ADDITIVE_PROBLEM } = { ...ATTENTION_PROBLEM, ...LAYER };
const { similarity: _o, ...ADDITIVE_OPTIONS } = { ...ATTENTION_OPTIONS, ...LAYER };

/**
 * Additive attention on the GPU; see {@link planAdditiveAttention} for the formula. For weights and
 * best keys call `attentionWeights` and `topKKeys` with
 * `similarity: { kind: "additive", vector, ... }`.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param q [B, H, M, D] f32, f16 or bf16, projected
 * @param k [B, Hkv, N, D], projected
 * @param v [B, Hkv, N, Dv]
 *
 * @example
 * const { output } = await additiveAttention(q, k, v, { vector, kvLengths: [12, 7] });
 */
export async function additiveAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AdditiveOptions = {},
): Promise<AttentionResult> {
  return attention(q, k, v, withLayer(takeOptions(LABEL, options, ADDITIVE_OPTIONS)));
}

/** Puts the layer's options into a similarity. */
function withLayer<Options extends AdditiveLayer & { readonly label?: string }>(options: Options) {
  const { vector, innerBias, innerScale, normalize, gain, ...rest } = options;
  const layer = { vector, innerBias, innerScale, normalize, gain };
  const given = Object.fromEntries(
    Object.entries(layer).filter(([, value]) => value !== undefined),
  );
  return {
    ...rest,
    label: options.label ?? LABEL,
    similarity: { kind: "additive" as const, ...given },
  };
}
