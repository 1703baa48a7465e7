// Layer normalisation and root mean square normalisation, of a tensor or of a sum: the plan, and
// the one-liners on top of it.

import { readOptions } from "../given.ts";
import { isSoftware } from "../gpu/device.ts";
import type { FloatTensor, Tensor } from "../gpu/tensor.ts";
import { layerNormSpecialisation } from "../kernels/layer_norm.ts";
import { rowKernel, rowWorkgroups } from "../kernels/rows.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../plan/operation.ts";
import type { Plan } from "../plan/plan.ts";
import { checkTensors, type RunOptions } from "../plan/run.ts";
import type { ResolvedSpec } from "../plan/specs.ts";
import {
  LAYER_NORM_PROBLEM,
  type LayerNormBindings,
  type LayerNormProblem,
  type ResolvedLayerNorm,
  resolveLayerNorm,
} from "./layer_norm_problem.ts";
import { broadcastTo, foldRows, lanesOf, layRows } from "./row_axes.ts";

/** A compiled normalisation. */
export type LayerNormPlan = Plan<LayerNormBindings>;

/**
 * Compiles a normalisation of rows, the elements of the trailing axes, by mean and variance or by
 * the root mean square:
 *
 * ```
 * sum    = x + residual + residualBias
 * output = (sum - mean(sum)) / sqrt(variance(sum) + epsilon) * weight + bias
 * output = sum / sqrt(mean(sum^2) + epsilon) * weight + bias                       with rms: true
 * ```
 *
 * Source: arXiv 1607.06450 and arXiv 1910.07467. The variance is the mean of (sum - mean)^2. Every
 * tensor is f32, f16 or bf16 and has its own strides; the sum and its statistics are f32 whatever
 * the storage, and `sum` is rounded when it is written. Lengths and strides compile nothing. The
 * same inputs on the same device give the same bits.
 *
 * Results are right to f32 for every mean and every magnitude of a row, from the smallest normal
 * numbers to the largest, even if only the sum is beyond f32 (`sum` then holds an infinity). A row
 * of equal numbers is exactly 0 before its bias. With an epsilon of 0, a row without deviation is 0
 * too, and so is a row of zeros by the root mean square; its inverse deviation is Infinity. Numbers
 * below 2^-126 may count as 0, which WGSL leaves to the device.
 *
 * A row with NaN is NaN. A row with an infinity is NaN too, as the formula gives; by the root mean
 * square, which is infinite then, its finite elements are 0 and the infinite ones NaN. Other rows
 * are not affected.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const plan = await planLayerNorm(device, {
 *   x: { shape: [2, 128, 768] },
 *   residual,
 *   weight,
 *   bias,
 *   sum: true,
 * });
 * plan.encode(pass, { x, output, sum });
 */
export function planLayerNorm(
  device: GPUDevice,
  problem: LayerNormProblem,
): Promise<LayerNormPlan> {
  return LAYER_NORM.plan(device, problem);
}

type Outputs = Pick<LayerNormResult, "output" | "sum" | "statistics">;

const LAYER_NORM = operation<LayerNormProblem, LayerNormBindings, ResolvedLayerNorm, Outputs>({
  name: "layerNorm",
  problem: LAYER_NORM_PROBLEM,
  resolve: resolveLayerNorm,
  tensors({ add }, { specs }, problem) {
    for (const name of ["output", "sum", "statistics"] as const) {
      const spec = specs[name];
      if (spec) add(name, spec, problem[name], true);
    }
    for (const name of ["x", "residual", "residualBias", "weight", "bias"] as const) {
      const spec = specs[name];
      if (spec) add(name, spec, problem[name]);
    }
  },
  kernel,
  results: ({ specs: { output, sum, statistics } }) => ({ output, sum, statistics }),
});

/**
 * On software adapters a workgroup runs on one thread, four lanes at a time, and each of its
 * barriers is a turn of all lanes: fewer rows than these have four lanes each, wide ones more, and
 * no others that wait with them.
 */
const SMALL_ROWS = 64;

function kernel(
  { specs, axis, epsilon, rms }: ResolvedLayerNorm,
  { label, device }: Caller,
): Stage {
  const { shape } = specs.x;
  const { statistics } = specs;
  const wide = (name: string, spec: ResolvedSpec | undefined) =>
    spec && broadcastTo(label, name, spec, shape);
  const inputs = {
    residual: wide("residual", specs.residual),
    shift: wide("residualBias", specs.residualBias),
    weight: wide("weight", specs.weight),
    bias: wide("bias", specs.bias),
    total: specs.sum,
    statistics: statistics && broadcastTo(label, "statistics", ofFirst(statistics), shape),
  };
  const used = Object.fromEntries(Object.entries(inputs).filter(([, spec]) => spec !== undefined));
  const folded = foldRows(
    label,
    { source: specs.x, ...used, o: specs.output },
    shape.length - axis,
  );
  const { accesses, params } = layRows(device, folded, {
    epsilon,
    inverse_at: statistics && !rms ? statistics.strides[0] : 0,
  });
  const { lanes: most, rowsAdjacent } = lanesOf(device, folded);
  const isSmall = isSoftware(device) && folded.rows < SMALL_ROWS;
  const few = folded.width > 1024 ? 32 : 4;
  const shared = isSmall ? { lanes: few, workgroup: few } : { lanes: most, workgroup: 256 };
  return {
    source: rowKernel(
      "layer_norm",
      layerNormSpecialisation(accesses, { ...shared, rowsAdjacent, centred: !rms }),
    ),
    names: { source: "x", shift: "residualBias", o: "output", total: "sum" },
    params,
    workgroups: rowWorkgroups(folded.rows, shared.lanes, shared.workgroup),
  };
}

/** The spec of the first of the statistics: [2, ...] without the first axis. */
const ofFirst = ({ shape, strides, ...rest }: ResolvedSpec): ResolvedSpec => ({
  ...rest,
  shape: shape.slice(1),
  strides: strides.slice(1),
});

/** Options of {@link layerNorm} and {@link rmsNorm}. */
export interface LayerNormOptions
  extends Pick<LayerNormProblem, "axis" | "epsilon" | "label">,
    RunOptions {
  /** Factor of each element of a row. Default 1. */
  readonly weight?: Tensor;
  /** Added to each element of a row at the end. Default: none. */
  readonly bias?: Tensor;
  /** Added to x before; broadcasts to its shape. Default: none. */
  readonly residual?: Tensor;
  /** Added to x before, like `residual`; broadcasts to the shape of x. Default: none. */
  readonly residualBias?: Tensor;
  /**
   * Where the result goes. Default: a new dense tensor of the shape and dtype of x, which is the
   * caller's to destroy.
   */
  readonly output?: Tensor;
  /**
   * Whether x + residual + residualBias is a result too, or the tensor that it goes to. Default
   * false.
   */
  readonly sum?: boolean | Tensor;
  /**
   * Whether mean and inverse deviation are results too, or the tensor that they go to. Default
   * false.
   */
  readonly statistics?: boolean | Tensor;
}

export interface LayerNormResult {
  readonly output: FloatTensor;
  /** x + residual + residualBias, if asked for. */
  readonly sum?: FloatTensor;
  /**
   * f32 [2, ...], mean and inverse deviation of each row, if asked for; [1, ...] for a root mean
   * square, which has no mean.
   */
  readonly statistics?: Tensor<"f32">;
  /**
   * The mean, a view of `statistics` with the shape of x and the normalised axes 1; a root mean
   * square has none.
   */
  readonly mean?: Tensor<"f32">;
  /**
   * 1 / sqrt(variance + epsilon) or 1 / sqrt(mean square + epsilon), a view of `statistics` like
   * `mean`.
   */
  readonly inverseDeviation?: Tensor<"f32">;
}

/** The names of the options. */
const LAYER_NORM_OPTIONS = optionsBeside(LAYER_NORM_PROBLEM, "x", "rms");

async function runLayerNorm(
  name: string,
  x: Tensor,
  given: LayerNormOptions,
  rms: boolean,
): Promise<LayerNormResult> {
  const options = await readOptions(name, given, LAYER_NORM_OPTIONS);
  const { weight, bias, residual, residualBias, output, sum, statistics } = options;
  const inputs = { weight, bias, residual, residualBias };
  const outputs = { output, sum: unlessFlag(sum), statistics: unlessFlag(statistics) };
  checkTensors(options.label ?? name, { x }, { ...inputs, ...outputs });
  const results = await LAYER_NORM.run({
    device: x.device,
    name,
    problem: { ...options, x, rms },
    options,
  });
  return { ...results, ...(results.statistics && viewsOf(results.statistics, rms)) };
}

const unlessFlag = <Given>(given: Given | boolean): Given | undefined =>
  typeof given === "boolean" ? undefined : given;

function viewsOf(
  statistics: Tensor<"f32">,
  rms: boolean,
): Pick<LayerNormResult, "mean" | "inverseDeviation"> {
  const [first, ...strides] = statistics.strides;
  const shape = statistics.shape.slice(1);
  const inverseDeviation = statistics.view({ shape, strides, offset: rms ? 0 : first });
  return rms
    ? { inverseDeviation }
    : { mean: statistics.view({ shape, strides }), inverseDeviation };
}

/**
 * Layer normalisation over the trailing axes, of x or of the sum of x and a residual. See
 * {@link planLayerNorm} for the formula and the rules.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x f32, f16 or bf16, of any shape with one axis or more
 *
 * @example
 * const { output, sum } = await layerNorm(x, { weight, bias, residual, sum: true });
 */
export function layerNorm(x: Tensor, options: LayerNormOptions = {}): Promise<LayerNormResult> {
  return runLayerNorm("layerNorm", x, options, false);
}

/**
 * Root mean square normalisation over the trailing axes, of x or of the sum of x and a residual.
 * See
 * {@link planLayerNorm} for the formula and the rules.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x f32, f16 or bf16, of any shape with one axis or more
 *
 * @example
 * const { output } = await rmsNorm(x, { weight, epsilon: 1e-6 });
 */
export function rmsNorm(x: Tensor, options: LayerNormOptions = {}): Promise<LayerNormResult> {
  return runLayerNorm("rmsNorm", x, options, true);
}
