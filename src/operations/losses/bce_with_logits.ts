// The binary cross-entropy of logits: the plan, and the one-liner on top of it.

import { type OptionNames, readOptions } from "../../given.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { optionsBeside } from "../../plan/operation.ts";
import type { Plan } from "../../plan/plan.ts";
import { checkTensors, type RunOptions } from "../../plan/run.ts";
import {
  type BceWeightBindings,
  elementLoss,
  type LossResult,
  type MseBindings,
} from "./element_operations.ts";
import { BCE_INPUTS, type BceInputs } from "./element_problem.ts";
import type { Reduction } from "./reduction.ts";

/**
 * The loss that a plan is made for. Shapes and strides are fixed by the plan; memory is given at
 * encode.
 */
export interface BceWithLogitsProblem extends BceInputs, LossResult {}

/** The names of all members of a problem. */
const PROBLEM: OptionNames<BceWithLogitsProblem> = {
  ...BCE_INPUTS,
  loss: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface BceWithLogitsBindings extends MseBindings, BceWeightBindings {}

/** A compiled loss. */
export type BceWithLogitsPlan = Plan<BceWithLogitsBindings>;

/**
 * Compiles the binary cross-entropy of logits x and the probabilities t that are wanted:
 *
 * ```
 * loss[i] = w ((1 - t) softplus(x) + p t softplus(-x)),    and the mean or the sum of these
 * softplus(x) = log(1 + exp(x)),   w = weight, p = posWeight, both 1 by default
 * ```
 *
 * As PyTorch's `binary_cross_entropy_with_logits`; of logits of any size, since nothing overflows
 * and no large terms cancel.
 * A sum is f32 of a fixed order, which carries what it loses, so that its error does not grow with
 * the number of elements and the same inputs on the same device give the same bits. Lengths and
 * strides compile nothing. A mean of no element is NaN.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const x = { shape: [64, 10] };
 * const plan = await planBceWithLogits(device, { x, target: x });
 * plan.encode(pass, { x: logits, target, loss });
 */
export function planBceWithLogits(
  device: GPUDevice,
  problem: BceWithLogitsProblem,
): Promise<BceWithLogitsPlan> {
  return LOSS.plan(device, problem);
}

const LOSS = elementLoss<BceWithLogitsProblem, BceWithLogitsBindings>(
  "logistic",
  "bceWithLogits",
  PROBLEM,
);

/** Options of {@link bceWithLogits}. */
export interface BceWithLogitsOptions extends RunOptions {
  /** `"mean"`, `"sum"` or `"none"`. Default `"mean"`. */
  readonly reduction?: Reduction;
  /** What each element weighs; it broadcasts to the shape of x. Default 1. */
  readonly weight?: Tensor;
  /** What a positive target weighs; it broadcasts to the shape of x. Default 1. */
  readonly posWeight?: Tensor;
  /** Where the loss goes. Default: a new f32 tensor, which is the caller's to destroy. */
  readonly loss?: Tensor;
  /** Name in errors and captures. */
  readonly label?: string;
}

/** The names of the options. */
const OPTIONS = optionsBeside(PROBLEM, "x", "target");

/**
 * The binary cross-entropy of logits, its mean or sum, or each by itself. See {@link
 * planBceWithLogits} for the formula and the rules.
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
 * const { loss } = await bceWithLogits(logits, target);
 * const [value] = await loss.read();
 */
export async function bceWithLogits(
  x: Tensor,
  target: Tensor,
  given: BceWithLogitsOptions = {},
): Promise<{ readonly loss: Tensor<"f32"> }> {
  const name = "bceWithLogits";
  const options = await readOptions(name, given, OPTIONS);
  const { label = name, weight, posWeight, loss } = options;
  checkTensors(label, { x, target }, { weight, posWeight, loss });
  const problem = { ...options, x, target };
  return LOSS.run({ device: x.device, name, problem, options });
}
