// The cross-entropy of logits and classes: the plan, and the one-liner on top of it.

import { type OptionNames, readOptions } from "../../given.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { operation, optionsBeside } from "../../plan/operation.ts";
import type { Plan } from "../../plan/plan.ts";
import { checkTensors, type RunOptions } from "../../plan/run.ts";
import type { TensorSpec } from "../../types.ts";
import {
  CROSS_ENTROPY_INPUTS,
  type CrossEntropyInputs,
  type CrossEntropySettings,
  resolveCrossEntropy,
} from "./cross_entropy_problem.ts";
import {
  type CrossEntropyResults,
  crossEntropyStages,
  ownCrossEntropyMemory,
} from "./cross_entropy_stages.ts";
import { resolveLoss } from "./reduction.ts";

/**
 * The cross-entropy that a plan is made for. Shapes and strides are fixed by the plan; memory is
 * given at encode.
 */
export interface CrossEntropyProblem extends CrossEntropyInputs {
  /** f32: one number, [] or [1], or [...] with reduction none. Default: dense. */
  readonly loss?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"crossEntropy"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
const CROSS_ENTROPY_PROBLEM: OptionNames<CrossEntropyProblem> = {
  ...CROSS_ENTROPY_INPUTS,
  loss: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface CrossEntropyBindings {
  readonly logits?: Tensor;
  readonly target?: Tensor;
  readonly loss?: Tensor;
  /** Bound only if the plan was made with class weights. */
  readonly classWeights?: Tensor;
}

/** A compiled cross-entropy. */
export type CrossEntropyPlan = Plan<CrossEntropyBindings>;

/**
 * Compiles the cross-entropy of logits x and classes y, from the logits themselves:
 *
 * ```
 * loss[r] = (1 - s) w_y (lse - x_y) + s / C sum_c w_c (lse - x_c)      lse = log sum_c exp(x_c)
 * loss    = sum of loss[r] / sum of w_y    over the rows that count, for the mean
 * ```
 *
 * w are the class weights, or 1, and s is the label smoothing. As PyTorch's `cross_entropy`, but
 * the classes are the last axis. Nothing overflows, whatever the logits are, and no probability is
 * kept: one kernel reads each row, and a sum of fixed order, which carries what it loses, reduces
 * the rows. A row of the target `ignoreIndex` counts for nothing; a mean of no row is NaN. A target
 * that is neither a class nor `ignoreIndex`, and a row with NaN or +Infinity, or with nothing but
 * -Infinity, makes the loss NaN. Arithmetic is f32; lengths and strides compile nothing.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const target = { shape: [1024], dtype: "i32" } as const;
 * const plan = await planCrossEntropy(device, { logits: { shape: [1024, 50257] }, target });
 * plan.encode(pass, { logits, target: classes, loss });
 */
export function planCrossEntropy(
  device: GPUDevice,
  problem: CrossEntropyProblem,
): Promise<CrossEntropyPlan> {
  return CROSS_ENTROPY.plan(device, problem);
}

const CROSS_ENTROPY = operation<
  CrossEntropyProblem,
  CrossEntropyBindings,
  CrossEntropyResults,
  { readonly loss: Tensor<"f32"> }
>({
  name: "crossEntropy",
  problem: CROSS_ENTROPY_PROBLEM,
  resolve(problem, { label }) {
    const resolved = resolveCrossEntropy(label, problem);
    const { reduction, target } = resolved;
    const loss = resolveLoss(label, "loss", problem.loss, { reduction, shape: target.shape });
    return { ...resolved, loss, dLogits: undefined, dLoss: undefined };
  },
  tensors({ add, own }, resolved, problem) {
    const { logits, target, classWeights, loss } = resolved;
    if (loss) add("loss", loss, problem.loss, true);
    add("logits", logits, problem.logits);
    add("target", target, problem.target);
    if (classWeights) add("classWeights", classWeights, problem.classWeights);
    ownCrossEntropyMemory(own, resolved);
  },
  kernel: crossEntropyStages,
  results: ({ loss }) => ({ loss }),
});

/** Options of {@link crossEntropy}. */
export interface CrossEntropyOptions
  extends Omit<CrossEntropySettings, "classWeights">,
    RunOptions {
  /** f32 [C]: what each class weighs. Default 1 for all. */
  readonly classWeights?: Tensor;
  /** Where the loss goes. Default: a new f32 tensor, which is the caller's to destroy. */
  readonly loss?: Tensor;
  /** Name in errors and captures. */
  readonly label?: string;
}

/** The names of the options. */
const CROSS_ENTROPY_OPTIONS = optionsBeside(CROSS_ENTROPY_PROBLEM, "logits", "target");

/**
 * The cross-entropy of logits and classes. See {@link planCrossEntropy} for the formula and the
 * rules.
 *
 * Resolves once the GPU has accepted the work; `loss.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param logits [..., C] f32, f16 or bf16
 * @param target i32 or u32 [...]: the class of each row
 * @returns `{ loss }` [], or [...] with reduction none
 *
 * @example
 * const { loss } = await crossEntropy(logits, target, { ignoreIndex: 0, labelSmoothing: 0.1 });
 * const [value] = await loss.read();
 */
export async function crossEntropy(
  logits: Tensor,
  target: Tensor,
  given: CrossEntropyOptions = {},
): Promise<{ readonly loss: Tensor<"f32"> }> {
  const name = "crossEntropy";
  const options = await readOptions(name, given, CROSS_ENTROPY_OPTIONS);
  const { label = name, classWeights, loss } = options;
  checkTensors(label, { logits, target }, { classWeights, loss });
  const problem = { ...options, logits, target };
  return CROSS_ENTROPY.run({ device: logits.device, name, problem, options });
}
