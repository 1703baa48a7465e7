// Operations on every element by itself that may have an activation: the plan, and one-liners on top
// of it.

import { check, show } from "../errors.ts";
import { type OptionNames, readOptions } from "../given.ts";
import type { FloatTensor, Tensor } from "../gpu/tensor.ts";
import { activationModules } from "../kernels/activations.ts";
import type { Plan } from "../plan/plan.ts";
import {
  BIASED_OPTIONS,
  type PointwiseOptions,
  pointwiseOperation,
  runPointwise,
} from "./pointwise.ts";
import type { Activation, PointwiseBindings, PointwiseProblem } from "./pointwise_problem.ts";

/** A compiled pointwise operation. */
export type PointwisePlan = Plan<PointwiseBindings>;

/**
 * Compiles an operation on every element by itself:
 *
 * ```
 * output = activation(x + bias + residual) * factor
 * ```
 *
 * x, bias, residual and factor broadcast to the output by NumPy's rule. Each tensor has its own
 * dtype and strides, so this copies, converts between f32, f16 and bf16, transposes, and writes
 * into a slice of a larger tensor; rounding is to the nearest, ties to even, and sums are f32.
 * Infinities are copied, and a NaN becomes some NaN. Sizes and strides compile nothing. Strides
 * that keep more than four axes apart are refused.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * // present = concat(past, new) along the tokens, f16
 * const present = tensor(device, [1, 8, 12, 64], { dtype: "f16" });
 * const plan = await planPointwise(device, { x: fresh, output: present.slice(2, 10, 12) });
 * plan.encode(pass);
 */
export function planPointwise(
  device: GPUDevice,
  problem: PointwiseProblem,
): Promise<PointwisePlan> {
  return ACTIVATED.plan(device, problem);
}

const ACTIVATED = pointwiseOperation(activationModules);

/** Options of {@link activate}. */
export interface ActivateOptions extends PointwiseOptions {
  /** The function of each sum. Default: none, so that only sums and products are left. */
  readonly activation?: Activation;
  /** Added to x before; broadcasts to the shape of the output. Default: none. */
  readonly bias?: Tensor;
}

/** The names of the options. */
const ACTIVATE_OPTIONS: OptionNames<ActivateOptions> = {
  ...BIASED_OPTIONS,
  activation: "string",
};
const GELU_OPTIONS: OptionNames<GeluOptions> = { ...BIASED_OPTIONS, approximate: "string" };

/**
 * activation(x + bias + residual) * factor, of each element. See {@link planPointwise} for the
 * functions and the rules, and {@link activationBackward} for the gradients.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x f32, f16 or bf16, of any shape
 *
 * @example
 * // a gated unit, of two projections
 * const { output } = await activate(gate, { activation: "silu", factor: up });
 */
export async function activate(
  x: Tensor,
  options: ActivateOptions = {},
): Promise<{ readonly output: FloatTensor }> {
  const taken = await readOptions("activate", options, ACTIVATE_OPTIONS);
  return runPointwise("activate", x, taken, ACTIVATED);
}

/** Options of {@link gelu}. */
export interface GeluOptions extends PointwiseOptions {
  /** `"tanh"` computes the form with tanh in place of erf. Default `"none"`. */
  readonly approximate?: "none" | "tanh";
  /**
   * Added to x before, as FastGelu has it; broadcasts to the shape of the output. Default: none.
   */
  readonly bias?: Tensor;
}

/**
 * The Gaussian error linear unit of each element:
 *
 * ```
 * gelu(x) = x Phi(x) = 0.5 x (1 + erf(x / sqrt(2)))          or, with approximate: "tanh",
 *           0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
 * ```
 *
 * Source: arXiv 1606.08415. Both are right to f32 even if the result is small. NaN stays NaN,
 * Infinity stays Infinity, and -Infinity gives NaN, which the formulas have there. See
 * {@link planPointwise} for the rules.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x f32, f16 or bf16, of any shape
 *
 * @example
 * const { output } = await gelu(x, { approximate: "tanh", bias });
 */
export async function gelu(
  x: Tensor,
  options: GeluOptions = {},
): Promise<{ readonly output: FloatTensor }> {
  const { approximate = "none", ...rest } = await readOptions("gelu", options, GELU_OPTIONS);
  check(
    approximate === "none" || approximate === "tanh",
    "argument",
    () =>
      `${rest.label ?? "gelu"}: approximate must be "none" or "tanh", got ${show(approximate)}.`,
  );
  const activation = approximate === "tanh" ? "gelu-tanh" : "gelu";
  return runPointwise("gelu", x, { ...rest, activation }, ACTIVATED);
}
