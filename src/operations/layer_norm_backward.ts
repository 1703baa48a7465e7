// The gradients of layer normalisation and root mean square normalisation: the plan, and the
// one-liners on top of it.

import { readOptions } from "../given.ts";
import type { FloatTensor, Tensor } from "../gpu/tensor.ts";
import {
  layerNormBackwardSpecialisation,
  normSumsSpecialisation,
  normTermTensors,
} from "../kernels/gradients/layer_norm.ts";
import { rowGradientKernel } from "../kernels/gradients/rows.ts";
import { rowWorkgroups } from "../kernels/rows.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../plan/operation.ts";
import type { Plan } from "../plan/plan.ts";
import { checkTensors, type RunOptions } from "../plan/run.ts";
import {
  LAYER_NORM_BACKWARD_PROBLEM,
  type LayerNormBackwardBindings,
  type LayerNormBackwardProblem,
  type LayerNormGradient,
  type ResolvedLayerNormBackward,
  resolveLayerNormBackward,
} from "./layer_norm_backward_problem.ts";
import { lanesOf } from "./row_axes.ts";
import { type GradientSpecs, layGradientRows, sumStages } from "./row_gradients.ts";

/** Compiled gradients of a normalisation. */
export type LayerNormBackwardPlan = Plan<LayerNormBackwardBindings>;

const GRADIENTS = ["dX", "dResidual", "dResidualBias", "dWeight", "dBias"] as const;
const INPUTS = ["x", "dOutput", "residual", "residualBias", "weight", "dSum"] as const;

/**
 * Compiles the gradients of {@link planLayerNorm}: with t = x + residual + residualBias and n =
 * (t - mean(t)) / sqrt(variance(t) + epsilon), or t / sqrt(mean(t^2) + epsilon) with `rms: true`,
 *
 * ```
 * dn      = dOutput * weight
 * dX      = (dn - mean(dn) - n mean(dn n)) / sqrt(variance(t) + epsilon) + dSum
 * dWeight = sum dOutput n,   dBias = sum dOutput               over the rows
 * ```
 *
 * `rms` leaves out mean(dn). dResidual and dResidualBias are dX, summed over the axes along which
 * their tensors are broadcast; dResidual is the numbers of dX again if it has the shape of x, and
 * `gradients` may leave it out. Source: the derivative of arXiv 1607.06450, equation 4.
 *
 * The forward results are not needed: mean and variance are found again from x, as
 * {@link planLayerNorm} finds them, for rows of any mean and magnitude. Sums are f32, whatever the
 * storage, and carry what they lose: their error does not grow with the number of rows. A row
 * without deviation and epsilon has dX = dSum. The workspace holds 32 bytes a row, and the sums of
 * each 256 rows. Lengths and strides compile nothing. The same inputs on the same device give the
 * same bits.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const plan = await planLayerNormBackward(device, {
 *   x: { shape: [2, 128, 768] },
 *   weight: { shape: [768] },
 *   dOutput: { shape: [2, 128, 768] },
 *   gradients: ["dX", "dWeight"],
 * });
 * plan.encode(pass, { x, weight, dOutput, dX, dWeight });
 */
export function planLayerNormBackward(
  device: GPUDevice,
  problem: LayerNormBackwardProblem,
): Promise<LayerNormBackwardPlan> {
  return LAYER_NORM_BACKWARD.plan(device, problem);
}

/** The gradients, by the names of what they are of; those that were not asked for are absent. */
export interface LayerNormGradients {
  /** Of x, and of x + residual + residualBias; of the shape of x. */
  readonly dX?: FloatTensor;
  /** Each of the shape of its tensor. */
  readonly dResidual?: FloatTensor;
  readonly dResidualBias?: FloatTensor;
  readonly dWeight?: FloatTensor;
  readonly dBias?: FloatTensor;
}

const LAYER_NORM_BACKWARD = operation<
  LayerNormBackwardProblem,
  LayerNormBackwardBindings,
  ResolvedLayerNormBackward,
  LayerNormGradients
>({
  name: "layerNormBackward",
  problem: LAYER_NORM_BACKWARD_PROBLEM,
  resolve: resolveLayerNormBackward,
  tensors({ add, own }, { specs, folded, sums }, problem) {
    for (const name of GRADIENTS) {
      const spec = specs[name];
      if (spec) add(name, spec, problem[name], true);
    }
    for (const name of INPUTS) {
      const spec = specs[name];
      if (spec) add(name, spec, problem[name]);
    }
    if (sums.groups.length) own("workspace", [Math.max(4, sums.workspace)], {});
    if (folded && sums.groups.length) own("tables", [8 * folded.rows], {});
  },
  kernel: stages,
  results: ({ specs: { dX, dResidual, dResidualBias, dWeight, dBias } }) => ({
    dX,
    dResidual,
    dResidualBias,
    dWeight,
    dBias,
  }),
});

/** The plan's names for what the kernels bind; the moments of the rows are its tables. */
const NAMES = {
  source: "x",
  shift: "residualBias",
  gradient: "dOutput",
  passed: "dSum",
  moments_of_rows: "tables",
};

function stages(
  { folded, epsilon, rms, whole, sums }: ResolvedLayerNormBackward,
  { device }: Caller,
): Stage[] {
  const sumsOf = (rows: { readonly rows: number; readonly width: number }, specs: GradientSpecs) =>
    sumStages(sums, {
      device,
      folded: rows,
      specsOf: (terms) => normTermTensors(specs, terms),
      kernelOf: (tensors, choice) => normSumsSpecialisation(tensors, choice, !rms),
      names: NAMES,
    });
  if (!folded) return sumsOf({ rows: 0, width: 0 }, {});
  const { source, residual, shift, weight, gradient, passed } = folded.specs;
  const read = { source, residual, shift, weight, gradient, passed };
  const moments = sums.groups.length > 0;
  const shared = lanesOf(device, folded);
  const rowStage = (name: LayerNormGradient | undefined, kept: boolean): Stage => {
    const o = name && folded.specs[name];
    const laid = layGradientRows(device, folded, { ...read, o }, { epsilon });
    const choice = { ...shared, centred: !rms, moments: kept };
    return {
      source: rowGradientKernel(
        "layer_norm_backward",
        layerNormBackwardSpecialisation(laid.accesses, choice),
      ),
      names: { ...NAMES, ...(name && { o: name }) },
      params: laid,
      workgroups: rowWorkgroups(folded.rows, shared.lanes),
    };
  };
  // The first of these keeps the moments for the sums; without any, a stage does nothing else.
  const rows = whole.length || !moments ? whole : [undefined];
  return [
    ...rows.map((name, index) => rowStage(name, moments && index === 0)),
    ...sumsOf(folded, read),
  ];
}

/** Options of {@link layerNormBackward} and {@link rmsNormBackward}. */
export interface LayerNormBackwardOptions
  extends Pick<LayerNormBackwardProblem, "axis" | "epsilon" | "gradients" | "label">,
    RunOptions {
  /** As the forward call had it, like the next ones. Default: none. */
  readonly weight?: Tensor;
  /** Only its shape and dtype are read, for dBias. */
  readonly bias?: Tensor;
  /** The second part of the sum that was normalised, which broadcasts to x. */
  readonly residual?: Tensor;
  /** The bias of that sum, which broadcasts to x. */
  readonly residualBias?: Tensor;
  /** Gradient of `sum`, of the shape of x. Default: none. */
  readonly dSum?: Tensor;
  /**
   * Where the gradients go. Default: new dense tensors of the shapes and dtypes of what they are
   * of, which are the caller's to destroy.
   */
  readonly dX?: Tensor;
  /** Of `residual`, summed over the axes along which that is broadcast. */
  readonly dResidual?: Tensor;
  /** Of `residualBias`, summed over the axes along which that is broadcast. */
  readonly dResidualBias?: Tensor;
  /** Of `weight`. */
  readonly dWeight?: Tensor;
  /** Of `bias`. */
  readonly dBias?: Tensor;
}

/** The names of the options. */
const LAYER_NORM_BACKWARD_OPTIONS = optionsBeside(
  LAYER_NORM_BACKWARD_PROBLEM,
  "x",
  "dOutput",
  "rms",
);

async function runLayerNormBackward(
  name: string,
  { x, dOutput }: { readonly x: Tensor; readonly dOutput: Tensor },
  given: LayerNormBackwardOptions,
  rms: boolean,
): Promise<LayerNormGradients> {
  const options = await readOptions(name, given, LAYER_NORM_BACKWARD_OPTIONS);
  const { axis, epsilon, gradients, label, encoder, ...tensors } = options;
  checkTensors(label ?? name, { x, dOutput }, tensors);
  return LAYER_NORM_BACKWARD.run({
    device: x.device,
    name,
    problem: { ...options, x, dOutput, rms },
    options,
  });
}

/**
 * The gradients of {@link layerNorm}, from that of its output: of x, and of each tensor that is
 * given. See {@link planLayerNormBackward} for the formula and the rules.
 *
 * Resolves once the GPU has accepted the work; `dX.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x f32, f16 or bf16, as the forward call had it
 * @param dOutput gradient of the output, of the shape of x
 * @returns `{ dX, dResidual, dResidualBias, dWeight, dBias }`, those that exist and that the option
 *   `gradients` names
 *
 * @example
 * const { dX, dWeight, dBias } = await layerNormBackward(x, dOutput, { weight, bias });
 */
export function layerNormBackward(
  x: Tensor,
  dOutput: Tensor,
  options: LayerNormBackwardOptions = {},
): Promise<LayerNormGradients> {
  return runLayerNormBackward("layerNormBackward", { x, dOutput }, options, false);
}

/**
 * The gradients of {@link rmsNorm}, from that of its output: of x, and of each tensor that is
 * given. See {@link planLayerNormBackward} for the formula and the rules.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x f32, f16 or bf16, as the forward call had it
 * @param dOutput gradient of the output, of the shape of x
 * @returns as for {@link layerNormBackward}
 *
 * @example
 * const { dX, dWeight } = await rmsNormBackward(x, dOutput, { weight, epsilon: 1e-6 });
 */
export function rmsNormBackward(
  x: Tensor,
  dOutput: Tensor,
  options: LayerNormBackwardOptions = {},
): Promise<LayerNormGradients> {
  return runLayerNormBackward("rmsNormBackward", { x, dOutput }, options, true);
}
