// The problem of linear attention's gradients as a caller gives it: tensors and options.

import type { OptionNames } from "../given.ts";
import type { TensorSpec } from "../types.ts";
import type { LinearAttentionProblem, LinearAttentionSettings } from "./options.ts";

/** The gradients of linear attention, by the tensors that they belong to. */
export type LinearGradient =
  | "dQ"
  | "dK"
  | "dV"
  | "dDecay"
  | "dBeta"
  | "dPastState"
  | "dPastNormalizer";
export const LINEAR_GRADIENTS: readonly LinearGradient[] = [
  "dQ",
  "dK",
  "dV",
  "dDecay",
  "dBeta",
  "dPastState",
  "dPastNormalizer",
];

/** The options of linear attention's gradients beside their tensors: those of the attention. */
export interface LinearAttentionBackwardSettings extends Omit<LinearAttentionSettings, "variant"> {
  /**
   * The gradients to compute, such as `["dQ", "dK"]`; what they don't need isn't computed either.
   * Default: those of all tensors that the problem has. `"dPastState"` and `"dPastNormalizer"` may
   * be asked for without a state before, which is then zeros.
   */
  readonly gradients?: readonly LinearGradient[];
}

/**
 * The tensors of a problem: tensors, or what they will look like. What the attention was called
 * with is as in {@link LinearAttentionProblem}.
 */
export interface LinearAttentionBackwardProblem
  extends LinearAttentionBackwardSettings,
    Pick<
      LinearAttentionProblem,
      "q" | "k" | "v" | "decay" | "beta" | "keyMask" | "pastState" | "pastNormalizer"
    > {
  /** Gradient of the output, [B, max(H, Hkv), M, Dv] f32, f16 or bf16. */
  readonly dOutput: TensorSpec;
  /** Gradient of the state after, [B, Hkv, D, Dv], dense f32. Default zeros. */
  readonly dPresentState?: TensorSpec;
  /** Gradient of z after, [B, Hkv, D], dense f32. Default zeros. */
  readonly dPresentNormalizer?: TensorSpec;
  /** Gradient of q, of its shape. Default, as for dK, dV, dDecay and dBeta: dense, of its dtype. */
  readonly dQ?: TensorSpec;
  /** Gradient of k, of its shape. */
  readonly dK?: TensorSpec;
  /** Gradient of v, of its shape. */
  readonly dV?: TensorSpec;
  /** Gradient of the decay, of its shape. */
  readonly dDecay?: TensorSpec;
  /** Gradient of beta, of its shape. */
  readonly dBeta?: TensorSpec;
  /** Gradient of the state before, [B, Hkv, D, Dv], dense f32. */
  readonly dPastState?: TensorSpec;
  /** Gradient of z before, [B, Hkv, D], dense f32. */
  readonly dPastNormalizer?: TensorSpec;
}

/** The names of all members of a problem. */
export const LINEAR_BACKWARD_PROBLEM: OptionNames<LinearAttentionBackwardProblem> = {
  updateRule: "string",
  causal: "boolean",
  featureMap: "string",
  normalized: "boolean",
  scale: "number",
  kvLengths: "any",
  layout: "string",
  maxDispatchFlops: "number",
  label: "string",
  gradients: "any",
  q: "any",
  k: "any",
  v: "any",
  decay: "any",
  beta: "any",
  keyMask: "any",
  pastState: "any",
  pastNormalizer: "any",
  dOutput: "any",
  dPresentState: "any",
  dPresentNormalizer: "any",
  dQ: "any",
  dK: "any",
  dV: "any",
  dDecay: "any",
  dBeta: "any",
  dPastState: "any",
  dPastNormalizer: "any",
};

/** The caller's names of a problem's tensors, without lengths. */
export type LinearBackwardTensor = Exclude<
  keyof LinearAttentionBackwardProblem,
  keyof LinearAttentionBackwardSettings
>;
