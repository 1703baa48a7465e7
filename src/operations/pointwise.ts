// Operations on every element by itself: copies, conversions and sums. Those with an activation, and
// the plan, are in activations.ts.

import { check } from "../errors.ts";
import { type OptionNames, readOptions } from "../given.ts";
import type { FloatTensor, Tensor } from "../gpu/tensor.ts";
import {
  type ActivationModules,
  pointwiseSpecialisation,
  pointwiseWorkgroups,
} from "../kernels/pointwise.ts";
import { rowKernel } from "../kernels/rows.ts";
import { type Caller, operation, type Stage } from "../plan/operation.ts";
import { checkTensors, RUN_OPTIONS, type RunOptions } from "../plan/run.ts";
import type { ResolvedSpec } from "../plan/specs.ts";
import type { Dtype } from "../types.ts";
import {
  type Activation,
  POINTWISE_PROBLEM,
  type PointwiseBindings,
  type PointwiseProblem,
  type ResolvedPointwise,
  resolvePointwise,
} from "./pointwise_problem.ts";
import { broadcastTo, foldRows, layRows } from "./row_axes.ts";

/** The operation, with modules of the activations that its problems may have. */
export const pointwiseOperation = (modulesOf?: (activation: Activation) => ActivationModules) =>
  operation<
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
    kernel: ({ specs, activation }, caller) =>
      pointwiseStage(specs, caller, activation && modulesOf?.(activation)),
    results: ({ specs: { output } }) => ({ output }),
  });

/** Copies and sums: what this file has by itself, without the text of any activation. */
export const POINTWISE = pointwiseOperation();

/** The kernel, and how it covers the output. */
export function pointwiseStage(
  specs: ResolvedPointwise["specs"],
  { label, device }: Caller,
  activation?: ActivationModules,
): Stage {
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

/** Options of {@link copyTensor}, {@link addBias}, {@link activate} and {@link gelu}. */
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
export const BIASED_OPTIONS = { ...POINTWISE_OPTIONS, bias: "any" } as const;

/** Runs a pointwise operation once. */
export async function runPointwise(
  name: string,
  x: Tensor,
  options: PointwiseOptions & Pick<PointwiseProblem, "activation"> & { bias?: Tensor },
  pointwise = POINTWISE,
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
  return pointwise.run({ device: x.device, name, problem, options });
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
