// Operations on every element by itself: copies, conversions, sums and activations. The plan, and
// one-liners on top of it.

import { check, show } from "../errors.ts";
import { type OptionNames, readOptions } from "../given.ts";
import type { FloatTensor, Tensor } from "../gpu/tensor.ts";
import { pointwiseSpecialisation, pointwiseWorkgroups } from "../kernels/pointwise.ts";
import { rowKernel } from "../kernels/rows.ts";
import { type Caller, operation, type Stage } from "../plan/operation.ts";
import type { Plan } from "../plan/plan.ts";
import { checkTensors, RUN_OPTIONS, type RunOptions } from "../plan/run.ts";
import type { ResolvedSpec } from "../plan/specs.ts";
import type { Dtype } from "../types.ts";
import {
  POINTWISE_PROBLEM,
  type PointwiseBindings,
  type PointwiseProblem,
  type ResolvedPointwise,
  resolvePointwise,
} from "./pointwise_problem.ts";
import { broadcastTo, foldRows, layRows } from "./row_axes.ts";

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
  return POINTWISE.plan(device, problem);
}

const POINTWISE = operation<
  PointwiseProblem,
  PointwiseBindings,
  ResolvedPointwise,
  { readonly output: FloatTensor }
>({
  name: "pointwise",
  problem: POINTWISE_PROBLEM,
  resolve: resolvePointwise,
  tensors({ add }, { specs }, problem) {
    for (const name of ["x", "bias", "residual", "factor", "output"] as const) {
      const spec = specs[name];
      if (spec) add(name, spec, problem[name], name === "output");
    }
  },
  kernel,
  results: ({ specs: { output } }) => ({ output }),
});

function kernel({ specs, activation }: ResolvedPointwise, { label, device }: Caller): Stage {
  const { x, bias, residual, factor, output } = specs;
  const wide = (name: string, spec: ResolvedSpec) => broadcastTo(label, name, spec, output.shape);
  const folded = foldRows(
    label,
    {
      source: wide("x", x),
      ...(bias && { bias: wide("bias", bias) }),
      ...(residual && { residual: wide("residual", residual) }),
      ...(factor && { weight: wide("factor", factor) }),
      o: output,
    },
    0,
    { weight: "factor" },
  );
  const { accesses, params } = layRows(device, folded);
  return {
    source: rowKernel("pointwise", pointwiseSpecialisation(accesses, activation)),
    names: { source: "x", weight: "factor", o: "output" },
    params,
    workgroups: pointwiseWorkgroups(folded.rows, folded.width),
  };
}

/** Options of {@link copyTensor}, {@link addBias} and {@link gelu}. */
export interface PointwiseOptions extends RunOptions {
  /** Added to x; broadcasts to the shape of the output. Default: none. */
  readonly residual?: Tensor;
  /**
   * Multiplies the result, as the other half of a gated unit does; broadcasts to its shape. Default
   * 1.
   */
  readonly factor?: Tensor;
  /**
   * Where the result goes. Default: a new dense tensor of the shape of x, which is the caller's to
   * destroy.
   */
  readonly output?: Tensor;
  /** The dtype of the new tensor. Default: that of x. */
  readonly dtype?: Dtype;
  /** Name in errors and captures. */
  readonly label?: string;
}

/** The names of the options. */
const POINTWISE_OPTIONS: OptionNames<PointwiseOptions> = {
  ...RUN_OPTIONS,
  residual: "any",
  factor: "any",
  output: "any",
  dtype: "string",
  label: "string",
};
const BIASED_OPTIONS = { ...POINTWISE_OPTIONS, bias: "any" } as const;
const GELU_OPTIONS: OptionNames<GeluOptions> = { ...BIASED_OPTIONS, approximate: "string" };

/** Runs a pointwise operation once. */
async function runPointwise(
  name: string,
  x: Tensor,
  options: PointwiseOptions & Pick<PointwiseProblem, "activation"> & { bias?: Tensor },
): Promise<{ readonly output: FloatTensor }> {
  const { dtype, ...rest } = options;
  const { label = name, bias, residual, factor, output } = rest;
  checkTensors(label, { x }, { bias, residual, factor, output });
  check(
    output === undefined || dtype === undefined,
    "argument",
    () => `${label}: dtype is that of a new output, and an output was given; leave one out.`,
  );
  const like = { shape: x.shape, dtype: dtype ?? x.dtype };
  const problem = { ...rest, x, output: output ?? like };
  return POINTWISE.run({ device: x.device, name, problem, options });
}

/**
 * Copies a tensor to other strides or another float dtype, or into a slice of a larger tensor, and
 * adds a bias or another tensor if asked. See {@link planPointwise} for the rules.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x f32, f16 or bf16, of any shape; it broadcasts to the shape of an output that is given
 *
 * @example
 * const { output: dense } = await copyTensor(x.permute(0, 2, 1, 3), { dtype: "f16" });
 * await copyTensor(k, { output: present.slice(2, 10, 12) });
 */
export async function copyTensor(
  x: Tensor,
  options: PointwiseOptions & { readonly bias?: Tensor } = {},
): Promise<{ readonly output: FloatTensor }> {
  return runPointwise("copyTensor", x, await readOptions("copyTensor", options, BIASED_OPTIONS));
}

/**
 * x + bias, or x + bias + residual. See {@link planPointwise} for the rules.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x [..., W] f32, f16 or bf16
 * @param bias [W], or another shape that broadcasts to that of x
 *
 * @example
 * const { output } = await addBias(x, bias, { residual });
 */
export async function addBias(
  x: Tensor,
  bias: Tensor,
  options: PointwiseOptions = {},
): Promise<{ readonly output: FloatTensor }> {
  const taken = await readOptions("addBias", options, POINTWISE_OPTIONS);
  checkTensors(taken.label ?? "addBias", { x, bias });
  return runPointwise("addBias", x, { ...taken, bias });
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
  return runPointwise("gelu", x, {
    ...rest,
    activation: approximate === "tanh" ? "gelu-tanh" : "gelu",
  });
}
