// The gradients of linear projections: the plan, and the one-liner on top of it.

import { readOptions } from "../given.ts";
import type { FloatTensor, Tensor } from "../gpu/tensor.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../plan/operation.ts";
import type { Plan } from "../plan/plan.ts";
import { checkTensors, type RunOptions } from "../plan/run.ts";
import { biasStages, inputStages, weightStages } from "./projection_backward_kernels.ts";
import {
  PROJECTION_BACKWARD_PROBLEM,
  type ProjectionBackwardBindings,
  type ProjectionBackwardProblem,
  type ProjectionGradient,
  type ResolvedProjectionBackward,
  resolveProjectionBackward,
} from "./projection_backward_problem.ts";

/** Compiled gradients of a projection. */
export type ProjectionBackwardPlan = Plan<ProjectionBackwardBindings>;

/**
 * Compiles the gradients of a linear projection, y = x W^T + b (see {@link planProjection}):
 *
 * ```
 * dX      = dOutput W            [..., K]
 * dWeight = dOutput^T x          [N, K], over all rows that the weight serves
 * dBias   = sum of dOutput       [N], over all rows
 * ```
 *
 * Each tensor is f32, f16 or bf16 and has its own strides; products and sums are f32. A weight for
 * each batch entry or head has a gradient for each; along axes in which it is 1, its gradient is
 * summed. Sums over rows keep their digits: the error of dWeight is that of 512 rows, and the error
 * of dBias that of 64, however many there are. Without rows both are 0. No atomics are used, and
 * the same inputs on the same device give the same bits.
 *
 * Gradients that aren't asked for are not computed. Sums over many rows with a small result are cut
 * into shares, whose sums the plan's workspace holds: at most 8 MiB on GPUs.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const plan = await planProjectionBackward(device, {
 *   x: { shape: [2, 128, 512] },
 *   weight,
 *   dOutput: { shape: [2, 128, 256] },
 *   gradients: ["dX", "dWeight"],
 * });
 * plan.encode(pass, { x, dOutput, dX, dWeight });
 */
export function planProjectionBackward(
  device: GPUDevice,
  problem: ProjectionBackwardProblem,
): Promise<ProjectionBackwardPlan> {
  return PROJECTION_BACKWARD.plan(device, problem);
}

/** The operation of a projection's gradients. */
export const PROJECTION_BACKWARD = operation<
  ProjectionBackwardProblem,
  ProjectionBackwardBindings,
  ResolvedProjectionBackward,
  { readonly [Name in ProjectionGradient]: FloatTensor }
>({
  name: "projectionBackward",
  problem: PROJECTION_BACKWARD_PROBLEM,
  resolve: resolveProjectionBackward,
  tensors({ add, own }, { given, workspace }, problem) {
    for (const name of ["dX", "dWeight", "dBias"] as const) {
      const spec = given[name];
      if (spec) add(name, spec, problem[name], true);
    }
    for (const name of ["dOutput", "x", "weight"] as const) {
      const spec = given[name];
      if (spec) add(name, spec, problem[name]);
    }
    if (workspace > 0) own("workspace", [workspace], { dtype: "f32" }, true);
  },
  kernel,
  results: ({ given: { dX, dWeight, dBias } }) => ({ dX, dWeight, dBias }),
});

function kernel(resolved: ResolvedProjectionBackward, caller: Caller): readonly Stage[] {
  const stages = [
    ...inputStages(resolved, caller),
    ...weightStages(resolved, caller),
    ...biasStages(resolved, caller),
  ];
  // A gradient without elements has nothing to run, nor memory to bind.
  return stages.filter(({ workgroups }) => workgroups > 0);
}

/** Options of {@link projectionBackward}. */
export interface ProjectionBackwardOptions<Name extends ProjectionGradient = ProjectionGradient>
  extends Pick<ProjectionBackwardProblem, "maxDispatchFlops" | "variant" | "label">,
    RunOptions {
  /** The gradients to compute. Default: all three, `["dX", "dWeight", "dBias"]`. */
  readonly gradients?: readonly Name[];
  /**
   * Where the gradient of x goes. Default: a new dense tensor of the dtype of x, which is the
   * caller's to destroy.
   */
  readonly dX?: Tensor;
  /** Where the gradient of the weight goes. Default: a new one of the dtype of the weight. */
  readonly dWeight?: Tensor;
  /** Where the gradient of the bias goes. Default: a new one of the dtype of the weight. */
  readonly dBias?: Tensor;
}

/** The names of the options. */
const PROJECTION_BACKWARD_OPTIONS = optionsBeside(
  PROJECTION_BACKWARD_PROBLEM,
  "x",
  "weight",
  "dOutput",
);

/**
 * The gradients of y = x W^T + b on the GPU, from the one of y. See {@link planProjectionBackward}
 * for the formulas, the rules and the shapes.
 *
 * Resolves once the GPU has accepted the work; `dX.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x [..., K], as for {@link project}
 * @param weight [N, K], or one for each batch entry and head
 * @param dOutput [..., N], the gradient of y
 *
 * @example
 * const { dX, dWeight, dBias } = await projectionBackward(x, weight, dOutput);
 * const { dWeight: only } = await projectionBackward(x, weight, dOutput, {
 *   gradients: ["dWeight"],
 * });
 */
export async function projectionBackward<Name extends ProjectionGradient = ProjectionGradient>(
  x: Tensor,
  weight: Tensor,
  dOutput: Tensor,
  asked: ProjectionBackwardOptions<Name> = {},
): Promise<{ readonly [Gradient in Name]: FloatTensor }> {
  const name = "projectionBackward";
  const options = await readOptions<ProjectionBackwardOptions>(
    name,
    asked,
    PROJECTION_BACKWARD_OPTIONS,
  );
  const { dX, dWeight, dBias } = options;
  checkTensors(options.label ?? name, { x, weight, dOutput }, { dX, dWeight, dBias });
  const problem = { ...options, x, weight, dOutput };
  return PROJECTION_BACKWARD.run({ device: x.device, name, problem, options });
}
