// The gradients of the binary cross-entropy of logits: the plan, and the one-liner on top of it.

import { type OptionNames, readOptions } from "../../given.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { optionsBeside } from "../../plan/operation.ts";
import type { Plan } from "../../plan/plan.ts";
import { checkTensors, type RunOptions } from "../../plan/run.ts";
import {
  type BceWeightBindings,
  elementLossBackward,
  type LossGradient,
  type LossGradientResults,
  type LossGradients,
  type MseBackwardBindings,
} from "./element_operations.ts";
import { BCE_INPUTS, type BceInputs } from "./element_problem.ts";
import type { Reduction } from "./reduction.ts";

/**
 * The gradients that a plan is made for. Shapes and strides are fixed by the plan; memory is given
 * at encode.
 */
export interface BceWithLogitsBackwardProblem extends BceInputs, LossGradientResults {}

/** The names of all members of a problem. */
const PROBLEM: OptionNames<BceWithLogitsBackwardProblem> = {
  ...BCE_INPUTS,
  dLoss: "any",
  gradients: "any",
  dX: "any",
  dTarget: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface BceWithLogitsBackwardBindings extends MseBackwardBindings, BceWeightBindings {}

/** Compiled gradients of a loss. */
export type BceWithLogitsBackwardPlan = Plan<BceWithLogitsBackwardBindings>;

/**
 * Compiles the gradients of {@link planBceWithLogits}, with n elements:
 *
 * ```
 * dX      = g w ((1 - t) sigmoid(x) - p t sigmoid(-x))
 * dTarget = g w (p softplus(-x) - softplus(x))         g = dLoss / n for the mean; dLoss; dLoss[i]
 * ```
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const x = { shape: [64, 10] };
 * const plan = await planBceWithLogitsBackward(device, { x, target: x });
 * plan.encode(pass, { x: logits, target, dX });
 */
export function planBceWithLogitsBackward(
  device: GPUDevice,
  problem: BceWithLogitsBackwardProblem,
): Promise<BceWithLogitsBackwardPlan> {
  return BACKWARD.plan(device, problem);
}

const BACKWARD = elementLossBackward<BceWithLogitsBackwardProblem, BceWithLogitsBackwardBindings>(
  "logistic",
  "bceWithLogitsBackward",
  PROBLEM,
);

/** Options of {@link bceWithLogitsBackward}. */
export interface BceWithLogitsBackwardOptions extends RunOptions {
  /** `"mean"`, `"sum"` or `"none"`, as in the forward call. Default `"mean"`. */
  readonly reduction?: Reduction;
  /** What each element weighs; it broadcasts to the shape of x. Default 1. */
  readonly weight?: Tensor;
  /** What a positive target weighs; it broadcasts to the shape of x. Default 1. */
  readonly posWeight?: Tensor;
  /** f32, the gradient of the loss, of its shape. Default: 1. */
  readonly dLoss?: Tensor;
  /** Which gradients are computed, `"dX"`, `"dTarget"`. Default: dX. */
  readonly gradients?: readonly LossGradient[];
  /**
   * Where the gradients go. Default: new dense tensors of the dtypes of x and target, which are the
   * caller's to destroy.
   */
  readonly dX?: Tensor;
  /** The gradient of the target, likewise. */
  readonly dTarget?: Tensor;
  /** Name in errors and captures. */
  readonly label?: string;
}

/** The names of the options. */
const OPTIONS = optionsBeside(PROBLEM, "x", "target");

/**
 * The gradients of {@link bceWithLogits}. See {@link planBceWithLogitsBackward} for the formula.
 *
 * Resolves once the GPU has accepted the work; `dX.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x f32, f16 or bf16, as the forward call had it
 * @param target f32, f16 or bf16, of the shape of x
 * @returns `{ dX, dTarget }`, those that the option `gradients` names
 *
 * @example
 * const { dX } = await bceWithLogitsBackward(logits, target);
 */
export async function bceWithLogitsBackward(
  x: Tensor,
  target: Tensor,
  given: BceWithLogitsBackwardOptions = {},
): Promise<LossGradients> {
  const name = "bceWithLogitsBackward";
  const options = await readOptions(name, given, OPTIONS);
  const { label = name, weight, posWeight, dLoss, dX, dTarget } = options;
  checkTensors(label, { x, target }, { weight, posWeight, dLoss, dX, dTarget });
  const problem = { ...options, x, target };
  return BACKWARD.run({ device: x.device, name, problem, options });
}
