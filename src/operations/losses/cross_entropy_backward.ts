// The gradient of a cross-entropy by its logits, and the loss with it if it is wanted: the plan, and
// the one-liner on top of it.

import { type OptionNames, readOptions } from "../../given.ts";
import { type FloatTensor, resolveSpec, type Tensor } from "../../gpu/tensor.ts";
import { type Caller, operation, optionsBeside } from "../../plan/operation.ts";
import type { Plan } from "../../plan/plan.ts";
import { checkTensors, type RunOptions } from "../../plan/run.ts";
import { checkedSpec, expectApart, expectShape, FLOATS } from "../../plan/specs.ts";
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
 * The gradient of a cross-entropy that a plan is made for. Shapes and strides are fixed by the
 * plan; memory is given at encode.
 */
export interface CrossEntropyBackwardProblem extends CrossEntropyInputs {
  /** f32, the gradient of the loss, of its shape. Default: 1, for a loss that ends the program. */
  readonly dLoss?: TensorSpec;
  /** [..., C] f32, f16 or bf16. Default: dense, the dtype of logits. */
  readonly dLogits?: TensorSpec;
  /** The loss itself, from the same reading of the logits: `true`, or what it looks like. */
  readonly loss?: boolean | TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"crossEntropyBackward"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
const CROSS_ENTROPY_BACKWARD_PROBLEM: OptionNames<CrossEntropyBackwardProblem> = {
  ...CROSS_ENTROPY_INPUTS,
  dLoss: "any",
  dLogits: "any",
  loss: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface CrossEntropyBackwardBindings {
  readonly logits?: Tensor;
  readonly target?: Tensor;
  readonly dLogits?: Tensor;
  /** Bound only if the plan was made for it, as are the members that follow. */
  readonly classWeights?: Tensor;
  readonly dLoss?: Tensor;
  readonly loss?: Tensor;
}

/** A compiled gradient of a cross-entropy. */
export type CrossEntropyBackwardPlan = Plan<CrossEntropyBackwardBindings>;

/**
 * Compiles the gradient of {@link planCrossEntropy}, with p the softmax of a row:
 *
 * ```
 * dLogits[r, c] = g[r] ((1 - s) w_y (p_c - [c = y]) + s / C (p_c sum w - w_c))
 * g[r] = dLoss / sum of w_y over the rows that count, for the mean;   dLoss;   dLoss[r]
 * ```
 *
 * Rows that are ignored have the gradient 0. p is computed again from the logits, of which each row
 * is read twice. With `loss`, the same kernel gives the loss, and a step of training needs no
 * forward pass of its own for it. What makes the loss of a row NaN makes its gradient NaN.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const target = { shape: [1024], dtype: "i32" } as const;
 * const logits = { shape: [1024, 50257] };
 * const plan = await planCrossEntropyBackward(device, { logits, target, loss: true });
 * plan.encode(pass, { logits: scores, target: classes, dLogits, loss });
 */
export function planCrossEntropyBackward(
  device: GPUDevice,
  problem: CrossEntropyBackwardProblem,
): Promise<CrossEntropyBackwardPlan> {
  return CROSS_ENTROPY_BACKWARD.plan(device, problem);
}

/** The gradient, and the loss if it was asked for. */
export interface CrossEntropyGradients {
  /** [..., C] */
  readonly dLogits: FloatTensor;
  /** [], or [...] with reduction none */
  readonly loss?: Tensor<"f32">;
}

const CROSS_ENTROPY_BACKWARD = operation<
  CrossEntropyBackwardProblem,
  CrossEntropyBackwardBindings,
  CrossEntropyResults,
  CrossEntropyGradients
>({
  name: "crossEntropyBackward",
  problem: CROSS_ENTROPY_BACKWARD_PROBLEM,
  resolve,
  tensors({ add, own }, resolved, problem) {
    const { logits, target, classWeights, loss, dLogits, dLoss } = resolved;
    if (dLogits) add("dLogits", dLogits, problem.dLogits, true);
    if (loss) add("loss", loss, problem.loss, true);
    add("logits", logits, problem.logits);
    add("target", target, problem.target);
    if (classWeights) add("classWeights", classWeights, problem.classWeights);
    if (dLoss) add("dLoss", dLoss, problem.dLoss);
    ownCrossEntropyMemory(own, resolved);
  },
  kernel: crossEntropyStages,
  results: ({ dLogits, loss }) => ({ dLogits, loss }),
});

function resolve(problem: CrossEntropyBackwardProblem, { label }: Caller): CrossEntropyResults {
  const resolved = resolveCrossEntropy(label, problem);
  const { logits, reduction, target } = resolved;
  const { loss: asked = false } = problem;
  const like = { reduction, shape: target.shape };
  const known = (given: TensorSpec | undefined, name: "loss" | "dLoss") =>
    resolveLoss(label, name, given, like);
  const dLogits = problem.dLogits
    ? checkedSpec(label, "dLogits", problem.dLogits, FLOATS)
    : resolveSpec("dLogits", { shape: logits.shape, dtype: logits.dtype });
  expectShape(label, "dLogits", dLogits, logits.shape, "like logits");
  expectApart(label, "dLogits", dLogits);
  return {
    ...resolved,
    dLogits,
    dLoss: problem.dLoss === undefined ? undefined : known(problem.dLoss, "dLoss"),
    loss: asked === false ? undefined : known(asked === true ? undefined : asked, "loss"),
  };
}

/** Options of {@link crossEntropyBackward}. */
export interface CrossEntropyBackwardOptions
  extends Omit<CrossEntropySettings, "classWeights">,
    RunOptions {
  /** f32 [C]: what each class weighs. Default 1 for all. */
  readonly classWeights?: Tensor;
  /** f32, the gradient of the loss, of its shape. Default: 1. */
  readonly dLoss?: Tensor;
  /**
   * Where the gradient goes. Default: a new dense tensor of the shape and dtype of logits, which is
   * the caller's to destroy.
   */
  readonly dLogits?: Tensor;
  /** The loss itself: `true` gives a new f32 tensor, and a tensor is written to. Default false. */
  readonly loss?: boolean | Tensor;
  /** Name in errors and captures. */
  readonly label?: string;
}

/** The names of the options. */
const CROSS_ENTROPY_BACKWARD_OPTIONS = optionsBeside(
  CROSS_ENTROPY_BACKWARD_PROBLEM,
  "logits",
  "target",
);

/**
 * The gradient of {@link crossEntropy} by its logits. See {@link planCrossEntropyBackward} for the
 * formula and the rules.
 *
 * Resolves once the GPU has accepted the work; `dLogits.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param logits [..., C] f32, f16 or bf16, as the forward call had them
 * @param target i32 or u32 [...]: the class of each row
 * @returns `{ dLogits, loss }`: the gradient, and the loss if it was asked for
 *
 * @example
 * const { dLogits, loss } = await crossEntropyBackward(logits, target, { loss: true });
 */
export async function crossEntropyBackward(
  logits: Tensor,
  target: Tensor,
  given: CrossEntropyBackwardOptions = {},
): Promise<CrossEntropyGradients> {
  const name = "crossEntropyBackward";
  const options = await readOptions(name, given, CROSS_ENTROPY_BACKWARD_OPTIONS);
  const { label = name, classWeights, dLoss, dLogits } = options;
  const loss = typeof options.loss === "boolean" ? undefined : options.loss;
  checkTensors(label, { logits, target }, { classWeights, dLoss, dLogits, loss });
  const problem = { ...options, logits, target };
  return CROSS_ENTROPY_BACKWARD.run({ device: logits.device, name, problem, options });
}
