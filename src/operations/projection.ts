// Linear projections, y = x W^T + b: the plan, and the one-liner on top of it.

import { readOptions } from "../given.ts";
import type { FloatTensor, Tensor } from "../gpu/tensor.ts";
import { operation, optionsBeside } from "../plan/operation.ts";
import { Plan } from "../plan/plan.ts";
import { checkTensors, type RunOptions } from "../plan/run.ts";
import { productStage } from "./products/product.ts";
import {
  PROJECTION_PROBLEM,
  type ProjectionBindings,
  type ProjectionProblem,
  type ResolvedProjection,
  resolveProjection,
} from "./projection_problem.ts";

/** A compiled projection. Make one with {@link planProjection}; encode it as often as you like. */
export type ProjectionPlan = Plan<ProjectionBindings>;
export const ProjectionPlan = Plan;

/**
 * Compiles a linear projection: a matrix product with a bias, the layer that transformers have
 * before and after attention.
 *
 * ```
 * y[..., n] = sum_k x[..., k] weight[n, k] + bias[n]
 * ```
 *
 * A weight with more axes than two is one for each batch entry or head of x: a product of matrices
 * by pairs.
 *
 * Each tensor is f32, f16 or bf16 and has its own strides; products and sums are f32. So it splits
 * and joins heads, and takes weights in either order of axes, without copies. A weight may also be
 * integers with scales (`quantised`). K may be 0: y is then the bias. Sizes and strides compile
 * nothing, but for rows of y, or of few rows of x, whose length is not a multiple of 4. The same
 * inputs on the same device give the same bits.
 *
 * Up to eight rows of x, as in decoding, take a kernel that reads each word of the weight once.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const projection = await planProjection(device, { x: { shape: [2, 128, 512] }, weight, bias });
 */
export function planProjection(
  device: GPUDevice,
  problem: ProjectionProblem,
): Promise<ProjectionPlan> {
  return PROJECTION.plan(device, problem);
}

/** The operation of projections. */
export const PROJECTION = operation<
  ProjectionProblem,
  ProjectionBindings,
  ResolvedProjection,
  { readonly output: FloatTensor }
>({
  name: "project",
  problem: PROJECTION_PROBLEM,
  resolve: resolveProjection,
  tensors({ add }, { given }, problem) {
    for (const name of ["x", "weight", "bias", "output"] as const) {
      const spec = given[name];
      if (spec) add(name, spec, problem[name], name === "output");
    }
  },
  kernel: (resolved, { device }) => productStage(device, resolved),
  results: ({ given: { output } }) => ({ output }),
});

/** Options of {@link project}. */
export interface ProjectionOptions
  extends Pick<ProjectionProblem, "quantised" | "maxDispatchFlops" | "variant" | "label">,
    RunOptions {
  /** [N], added to each row. Default: none. */
  readonly bias?: Tensor;
  /**
   * Where the result goes. Default: a new dense tensor of the dtype of x, which is the caller's to
   * destroy.
   */
  readonly output?: Tensor;
}

/** The names of the options. */
const PROJECTION_OPTIONS = optionsBeside(PROJECTION_PROBLEM, "x", "weight");

/**
 * y = x W^T + b on the GPU. See {@link planProjection} for the formula, the rules and the shapes.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x [..., K]
 * @param weight [N, K], or one for each batch entry and head, [B | 1, H | 1, N, K]; one that is
 *   stored [K, N] as `weight.permute(1, 0)`
 *
 * @example
 * const { output } = await project(x, weight, { bias });
 * // [B, H, M, N] times [B, H, N, Dv]
 * const { output: weighted } = await project(probabilities, v.permute(0, 1, 3, 2));
 */
export async function project(
  x: Tensor,
  weight: Tensor,
  asked: ProjectionOptions = {},
): Promise<{ readonly output: FloatTensor }> {
  const options = await readOptions("project", asked, PROJECTION_OPTIONS);
  checkTensors(options.label ?? "project", { x, weight });
  const problem = { ...options, x, weight };
  return PROJECTION.run({ device: x.device, name: "project", problem, options });
}
