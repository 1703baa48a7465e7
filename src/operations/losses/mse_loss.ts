// The squared error: the plan, and the one-liner on top of it.

import { type OptionNames, readOptions } from "../../given.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { optionsBeside } from "../../plan/operation.ts";
import type { Plan } from "../../plan/plan.ts";
import { checkTensors, type RunOptions } from "../../plan/run.ts";
import { elementLoss, type LossResult, type MseBindings } from "./element_operations.ts";
import { MSE_INPUTS, type MseInputs } from "./element_problem.ts";
import type { Reduction } from "./reduction.ts";

/**
 * The loss that a plan is made for. Shapes and strides are fixed by the plan; memory is given at
 * encode.
 */
export interface MseLossProblem extends MseInputs, LossResult {}

/** The names of all members of a problem. */
const PROBLEM: OptionNames<MseLossProblem> = {
  ...MSE_INPUTS,
  loss: "any",
  label: "string",
};

/** A compiled loss. */
export type MseLossPlan = Plan<MseBindings>;

/**
 * Compiles the squared error:
 *
 * ```
 * loss[i] = (x[i] - target[i])^2,    and the mean or the sum of these
 * ```
 *
 * A sum is f32 of a fixed order, which carries what it loses, so that its error does not grow with
 * the number of elements and the same inputs on the same device give the same bits. Lengths and
 * strides compile nothing. A mean of no element is NaN.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const x = { shape: [64, 10] };
 * const plan = await planMseLoss(device, { x, target: x });
 * plan.encode(pass, { x: prediction, target, loss });
 */
export function planMseLoss(device: GPUDevice, problem: MseLossProblem): Promise<MseLossPlan> {
  return LOSS.plan(device, problem);
}

const LOSS = elementLoss<MseLossProblem, MseBindings>("squared", "mseLoss", PROBLEM);

/** Options of {@link mseLoss}. */
export interface MseLossOptions extends RunOptions {
  /** `"mean"`, `"sum"` or `"none"`. Default `"mean"`. */
  readonly reduction?: Reduction;
  /** Where the loss goes. Default: a new f32 tensor, which is the caller's to destroy. */
  readonly loss?: Tensor;
  /** Name in errors and captures. */
  readonly label?: string;
}

/** The names of the options. */
const OPTIONS = optionsBeside(PROBLEM, "x", "target");

/**
 * The mean of squared errors, or their sum, or each by itself. See {@link planMseLoss} for the
 * formula and the rules.
 *
 * Resolves once the GPU has accepted the work; `loss.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x f32, f16 or bf16, of any shape
 * @param target f32, f16 or bf16, of the shape of x
 * @returns `{ loss }` [], or the shape of x with reduction none
 *
 * @example
 * const { loss } = await mseLoss(prediction, target);
 * const [value] = await loss.read();
 */
export async function mseLoss(
  x: Tensor,
  target: Tensor,
  given: MseLossOptions = {},
): Promise<{ readonly loss: Tensor<"f32"> }> {
  const name = "mseLoss";
  const options = await readOptions(name, given, OPTIONS);
  const { label = name, loss } = options;
  checkTensors(label, { x, target }, { loss });
  const problem = { ...options, x, target };
  return LOSS.run({ device: x.device, name, problem, options });
}
