// The gradients of operations on every element by itself: the plan, and the one-liner on top of it.

import { readOptions } from "../given.ts";
import type { FloatTensor, Tensor } from "../gpu/tensor.ts";
import { activationModules } from "../kernels/activations.ts";
import { pointwiseBackwardSpecialisation } from "../kernels/gradients/pointwise_backward.ts";
import { pointwiseWorkgroups } from "../kernels/pointwise.ts";
import { rowKernel } from "../kernels/rows.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../plan/operation.ts";
import type { Plan } from "../plan/plan.ts";
import { checkTensors, type RunOptions } from "../plan/run.ts";
import type { ResolvedSpec } from "../plan/specs.ts";
import {
  ACTIVATION_BACKWARD_PROBLEM,
  type ActivationBackwardBindings,
  type ActivationBackwardProblem,
  type ActivationGradient,
  type ResolvedActivationBackward,
  resolveActivationBackward,
} from "./activation_backward_problem.ts";
import { pointwiseStage } from "./pointwise.ts";
import { broadcastTo, foldRows, layRows } from "./row_axes.ts";

/** Compiled gradients of a pointwise operation. */
export type ActivationBackwardPlan = Plan<ActivationBackwardBindings>;

/**
 * Compiles the gradients of an operation on every element by itself, output = activation(t) *
 * factor with t = x + bias + residual (see {@link planPointwise}):
 *
 * ```
 * dX      = dOutput * factor * activation'(t)
 * dFactor = dOutput * activation(t)
 * ```
 *
 * All have the shape of dOutput, to which the other tensors broadcast. dX is the gradient of t, and
 * so that of each of x, bias and residual which has this shape. The gradient of one that is
 * broadcast is the sum of dX over the axes along which it is; for a bias of rows before an
 * activation, that is `dBias` of {@link planProjectionBackward}. So it is for dFactor.
 *
 * The slope of ReLU is 0 at 0. Slopes are right to f32 if they are small, too; where x is NaN,
 * gradients are. Each tensor has its own dtype and strides, as for the operation itself, and
 * arithmetic is f32. The same inputs on the same device give the same bits.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const plan = await planActivationBackward(device, {
 *   x: { shape: [2, 128, 768] },
 *   activation: "gelu",
 *   dOutput: { shape: [2, 128, 768] },
 * });
 * plan.encode(pass, { x, dOutput, dX });
 */
export function planActivationBackward(
  device: GPUDevice,
  problem: ActivationBackwardProblem,
): Promise<ActivationBackwardPlan> {
  return ACTIVATION_BACKWARD.plan(device, problem);
}

const ACTIVATION_BACKWARD = operation<
  ActivationBackwardProblem,
  ActivationBackwardBindings,
  ResolvedActivationBackward,
  { readonly [Name in ActivationGradient]: FloatTensor }
>({
  name: "activationBackward",
  problem: ACTIVATION_BACKWARD_PROBLEM,
  resolve: resolveActivationBackward,
  tensors({ add }, { specs }, problem) {
    for (const name of ["dX", "dFactor"] as const) {
      const spec = specs[name];
      if (spec) add(name, spec, problem[name], true);
    }
    for (const name of ["x", "bias", "residual", "factor", "dOutput"] as const) {
      const spec = specs[name];
      if (spec) add(name, spec, problem[name]);
    }
  },
  kernel,
  results: ({ specs: { dX, dFactor } }) => ({ dX, dFactor }),
});

function kernel({ specs, activation }: ResolvedActivationBackward, caller: Caller): Stage {
  const { x, bias, residual, factor, dOutput, dX, dFactor } = specs;
  if (!dX) {
    // The gradient of the factor alone is the operation itself, with dOutput as the factor.
    const forward = { x, bias, residual, factor: dOutput, output: dFactor as ResolvedSpec };
    const stage = pointwiseStage(forward, caller, activation && activationModules(activation));
    return { ...stage, names: { source: "x", weight: "dOutput", o: "dFactor" } };
  }
  const { label, device } = caller;
  const wide = (name: string, spec: ResolvedSpec) => broadcastTo(label, name, spec, dX.shape);
  const folded = foldRows(
    label,
    {
      source: wide("x", x),
      ...(bias && { bias: wide("bias", bias) }),
      ...(residual && { residual: wide("residual", residual) }),
      ...(factor && { weight: wide("factor", factor) }),
      shift: dOutput,
      o: dX,
      ...(dFactor && { total: dFactor }),
    },
    0,
    { weight: "factor", shift: "dOutput", o: "dX", total: "dFactor" },
  );
  const { accesses, params } = layRows(device, folded);
  return {
    source: rowKernel("pointwise_backward", pointwiseBackwardSpecialisation(accesses, activation)),
    names: { source: "x", weight: "factor", shift: "dOutput", o: "dX", total: "dFactor" },
    params,
    workgroups: pointwiseWorkgroups(folded.rows, folded.width),
  };
}

/** Options of {@link activationBackward}. */
export interface ActivationBackwardOptions<Name extends ActivationGradient = ActivationGradient>
  extends Pick<ActivationBackwardProblem, "activation" | "label">,
    RunOptions {
  /** What was added to x; broadcasts to the shape of dOutput. Default: nothing. */
  readonly bias?: Tensor;
  /** What was added to x, too; broadcasts to the shape of dOutput. Default: nothing. */
  readonly residual?: Tensor;
  /** What multiplied the result; broadcasts to the shape of dOutput. Default 1. */
  readonly factor?: Tensor;
  /** The gradients to compute. Default: dX, and dFactor if there is a factor. */
  readonly gradients?: readonly Name[];
  /**
   * Where the gradient of x goes. Default: a new dense tensor of the dtype of x, which is the
   * caller's to destroy.
   */
  readonly dX?: Tensor;
  /** Where the gradient of the factor goes. Default: a new one of the factor's dtype. */
  readonly dFactor?: Tensor;
}

/** The names of the options. */
const ACTIVATION_BACKWARD_OPTIONS = optionsBeside(ACTIVATION_BACKWARD_PROBLEM, "x", "dOutput");

/**
 * The gradients of activation(x + bias + residual) * factor on the GPU, from the one of the result.
 * See {@link planActivationBackward} for the formulas, the rules and the shapes.
 *
 * Resolves once the GPU has accepted the work; `dX.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x f32, f16 or bf16; it broadcasts to the shape of dOutput
 * @param dOutput the gradient of the result
 * @returns dX, and dFactor if there is a factor, unless `gradients` says less
 *
 * @example
 * const { dX } = await activationBackward(x, dOutput, { activation: "gelu" });
 * // a gated unit
 * const { dX: dGate, dFactor: dUp } = await activationBackward(gate, dOutput, {
 *   activation: "silu",
 *   factor: up,
 * });
 */
export async function activationBackward<Name extends ActivationGradient = ActivationGradient>(
  x: Tensor,
  dOutput: Tensor,
  asked: ActivationBackwardOptions<Name> & { readonly factor: Tensor },
): Promise<{ readonly [Gradient in Name]: FloatTensor }>;
export async function activationBackward(
  x: Tensor,
  dOutput: Tensor,
  asked?: ActivationBackwardOptions<"dX">,
): Promise<{ readonly dX: FloatTensor }>;
export async function activationBackward(
  x: Tensor,
  dOutput: Tensor,
  asked: ActivationBackwardOptions = {},
): Promise<{ readonly [Gradient in ActivationGradient]: FloatTensor }> {
  const name = "activationBackward";
  const options = await readOptions(name, asked, ACTIVATION_BACKWARD_OPTIONS);
  const { bias, residual, factor, dX, dFactor } = options;
  checkTensors(options.label ?? name, { x, dOutput }, { bias, residual, factor, dX, dFactor });
  const problem = { ...options, x, dOutput };
  return ACTIVATION_BACKWARD.run({ device: x.device, name, problem, options });
}
