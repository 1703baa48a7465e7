// The gradients of the squared error: the plan, and the one-liner on top of it.

import { type OptionNames, readOptions } from "../../given.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { optionsBeside } from "../../plan/operation.ts";
import type { Plan } from "../../plan/plan.ts";
import { checkTensors, type RunOptions } from "../../plan/run.ts";
import {
  elementLossBackward,
  type LossGradient,
  type LossGradientResults,
  type LossGradients,
  type MseBackwardBindings,
} from "./element_operations.ts";
import { MSE_INPUTS, type MseInputs } from "./element_problem.ts";
import type { Reduction } from "./reduction.ts";

/**
 * The gradients that a plan is made for. Shapes and strides are fixed by the plan; memory is given
 * at encode.
 */
export interface MseLossBackwardProblem extends MseInputs, LossGradientResults {}

/** The names of all members of a problem. */
const PROBLEM: OptionNames<MseLossBackwardProblem> = {
  ...MSE_INPUTS,
  dLoss: "any",
  gradients: "any",
  dX: "any",
  dTarget: "any",
  label: "string",
};

/** Compiled gradients of a loss. */
export type MseLossBackwardPlan = Plan<MseBackwardBindings>;

/**
 * Compiles the gradients of {@link planMseLoss}, with n elements:
 *
 * ```
 * dX[i] = 2 g (x[i] - target[i]),   dTarget = -dX      g = dLoss / n for the mean; dLoss; dLoss[i]
 * ```
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const x = { shape: [64, 10] };
 * const plan = await planMseLossBackward(device, { x, target: x });
 * plan.encode(pass, { x: prediction, target, dX });
 */
export function planMseLossBackward(
  device: GPUDevice,
  problem: MseLossBackwardProblem,
): Promise<MseLossBackwardPlan> {
  return BACKWARD.plan(device, problem);
}

const BACKWARD = elementLossBackward<MseLossBackwardProblem, MseBackwardBindings>(
  "squared",
  "mseLossBackward",
  PROBLEM,
);

/** Options of {@link mseLossBackward}. */
export interface MseLossBackwardOptions extends RunOptions {
  /** `"mean"`, `"sum"` or `"none"`, as in the forward call. Default `"mean"`. */
  readonly reduction?: Reduction;
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
 * The gradients of {@link mseLoss}. See {@link planMseLossBackward} for the formula.
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
 * const { dX } = await mseLossBackward(prediction, target);
 */
export async function mseLossBackward(
  x: Tensor,
  target: Tensor,
  given: MseLossBackwardOptions = {},
): Promise<LossGradients> {
  const name = "mseLossBackward";
  const options = await readOptions(name, given, OPTIONS);
  const { label = name, dLoss, dX, dTarget } = options;
  checkTensors(label, { x, target }, { dLoss, dX, dTarget });
  const problem = { ...options, x, target };
  return BACKWARD.run({ device: x.device, name, problem, options });
}
