// The problem of linear attention as a caller gives it: tensors and options.

import type { OptionNames } from "../given.ts";
import type { PerBatch } from "../plan/specs.ts";
import type { Layout, TensorSpec } from "../types.ts";

/** How a token changes the state, by the names of ONNX LinearAttention-27. */
export type UpdateRule = "linear" | "gated" | "delta" | "gated_delta";
export const UPDATE_RULES: readonly UpdateRule[] = ["linear", "gated", "delta", "gated_delta"];

/** The options of linear attention beside its tensors. */
export interface LinearAttentionSettings {
  /**
   * How a token changes the state S:
   *
   * ```
   * "linear"         S <- S + k v^T
   * "gated"          S <- exp(g) S + k v^T
   * "delta"          S <- S + k (beta (v - S^T k))^T
   * "gated_delta"    S <- exp(g) S, then as "delta"
   * ```
   *
   * If a rule is given, the attention is causal, and it is neither mapped nor normalised unless
   * `featureMap` and `normalized` say so. Default: `"linear"`, mapped and normalised, and causal
   * only if `causal` says so.
   */
  readonly updateRule?: UpdateRule;
  /**
   * Token i reads what the tokens 0..i have written, M = N. Default false without `updateRule`,
   * otherwise true.
   */
  readonly causal?: boolean;
  /**
   * phi: `"elu"` is elu(x) + 1, `"none"` is x. Default `"elu"` without `updateRule`, otherwise
   * `"none"`.
   */
  readonly featureMap?: "elu" | "none";
  /**
   * Whether the output is divided by phi(q).z, z being the sum of phi(k). Not with delta rules.
   * Default true without `updateRule`.
   */
  readonly normalized?: boolean;
  /** Factor of the output if it is not normalised. Default 1 / sqrt(D). */
  readonly scale?: number;
  /**
   * Keys of each batch entry, counted from the first; the rest is never read. Default N for all.
   */
  readonly kvLengths?: PerBatch;
  /** Axis order of q, k, v, decay, beta and output. Default `"bhmd"`. */
  readonly layout?: Layout;
  /**
   * Which kernels run a causal problem: `"chunked"` runs all chunks of 32 or 64 tokens at once, for
   * rules without delta and decays of a head; `"recurrent"` runs token by token, for all rules.
   * Default: chunked from 64 tokens on if the rule allows it; on software adapters only with head
   * dims beyond 64.
   */
  readonly variant?: "chunked" | "recurrent";
  /**
   * About the most floating-point operations of one dispatch, so that a GPU stays responsive; a
   * multiply-add counts as two. Default 2^36.
   */
  readonly maxDispatchFlops?: number;
  /** Name of GPU objects in errors and captures. Default `"linearAttention"`. */
  readonly label?: string;
}

/** The tensors of a problem: tensors, or what they will look like. */
export interface LinearAttentionProblem extends LinearAttentionSettings {
  /** [B, H, M, D] f32, f16 or bf16, as are k, v, decay and beta, each with its own dtype. */
  readonly q: TensorSpec;
  /** [B, Hk, N, D] */
  readonly k: TensorSpec;
  /**
   * [B, Hkv, N, Dv]. Hk divides Hkv; H is a multiple of Hkv, or divides it: then the output has Hkv
   * heads.
   */
  readonly v: TensorSpec;
  /**
   * g of each token in log space, at most 0 for a state that does not grow: [B, Hkv, N, 1], or [B,
   * Hkv, N, D].
   */
  readonly decay?: TensorSpec;
  /** How much of a token's correction is written: [B, Hkv | 1, N, 1]. */
  readonly beta?: TensorSpec;
  /** [B, max(H, Hkv), M, Dv]. Default: dense, dtype of q. */
  readonly output?: TensorSpec;
  /**
   * [B | 1, N] u8: 0 for a token that leaves the state as it is. Its key and value are never used.
   */
  readonly keyMask?: TensorSpec;
  /** The state before and after, in place: [B, Hkv, D, Dv], dense f32. Not with the two below. */
  readonly state?: TensorSpec;
  /** The state before. Default zeros. */
  readonly pastState?: TensorSpec;
  /** The state after. Default: not kept. */
  readonly presentState?: TensorSpec;
  /**
   * z before and after, in place: [B, Hkv, D], dense f32. It is part of the state if the attention
   * is normalised.
   */
  readonly normalizer?: TensorSpec;
  /** z before. Default zeros. */
  readonly pastNormalizer?: TensorSpec;
  /** z after. Default: not kept. */
  readonly presentNormalizer?: TensorSpec;
}

/** The names of all members of a problem. */
export const LINEAR_PROBLEM: OptionNames<LinearAttentionProblem> = {
  updateRule: "string",
  causal: "boolean",
  featureMap: "string",
  normalized: "boolean",
  scale: "number",
  kvLengths: "any",
  layout: "string",
  variant: "string",
  maxDispatchFlops: "number",
  label: "string",
  q: "any",
  k: "any",
  v: "any",
  decay: "any",
  beta: "any",
  output: "any",
  keyMask: "any",
  state: "any",
  pastState: "any",
  presentState: "any",
  normalizer: "any",
  pastNormalizer: "any",
  presentNormalizer: "any",
};

/** The caller's names of a problem's tensors, without lengths. */
export type LinearTensor = Exclude<keyof LinearAttentionProblem, keyof LinearAttentionSettings>;
