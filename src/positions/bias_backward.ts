// The gradients of biases of scores in memory: the plan, and one-liners on top of it.

import { type OptionNames, readOptions } from "../given.ts";
import type { FloatTensor, Tensor } from "../gpu/tensor.ts";
import {
  biasDiagonalsSpecialisation,
  biasSumsSpecialisation,
  biasTableSpecialisation,
} from "../kernels/gradients/position_bias.ts";
import { rowGradientKernel } from "../kernels/gradients/rows.ts";
import { broadcastTo } from "../operations/row_axes.ts";
import { layGradientRows, sumStages } from "../operations/row_gradients.ts";
import { type Caller, operation, type Stage } from "../plan/operation.ts";
import type { Plan } from "../plan/plan.ts";
import { checkTensors, RUN_OPTIONS, type RunOptions } from "../plan/run.ts";
import type { ResolvedSpec } from "../plan/specs.ts";
import {
  POSITION_BIAS_BACKWARD_PROBLEM,
  type PositionBiasBackwardBindings,
  type PositionBiasBackwardProblem,
  type PositionBiasGradient,
  type ResolvedBiasBackward,
  resolveBiasBackward,
} from "./bias_backward_problem.ts";
import { type BiasGates, GATES } from "./bias_problem.ts";

/** Compiled gradients of a position bias. */
export type PositionBiasBackwardPlan = Plan<PositionBiasBackwardBindings>;

const GRADIENTS = ["dTable", "dBias", "dUpdate", "dReset", "dScale"] as const;
/** Invocations of a workgroup of the kernels for a table. */
const WG_SIZE = 64;
/** Operations for each element of a diagonal, and the most of a dispatch. */
const ELEMENT_FLOPS = 16;
const MOST_FLOPS = 2 ** 36;

/**
 * Compiles the gradients of {@link planPositionBias}: with the factor f = u (r w - 1) + 2 of the
 * gates, or f = 1 without them,
 *
 * ```
 * dTable[k, h] = sum of f dOutput[b, h, i, j] over all places of bucket k,   dBias = f dOutput
 * dF = sum over j of bias dOutput
 * dUpdate = dF (r w - 1) u (1 - u),   dReset = dF u w r (1 - r),   dScale = dF u r
 * ```
 *
 * Each is summed over the axes along which its tensor is broadcast, in a fixed order and with a sum
 * that carries what it loses: the same inputs on the same device give the same bits. The table is
 * found by sums over the diagonals of the scores, whose elements have one bucket; a lane adds a
 * diagonal of all batch entries.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const dOutput = { shape: [1, 12, 128, 128] };
 * const plan = await planPositionBiasBackward(device, { table: { shape: [32, 12] }, dOutput });
 * plan.encode(pass, { table, dOutput: dBias, dTable });
 */
export function planPositionBiasBackward(
  device: GPUDevice,
  problem: PositionBiasBackwardProblem,
): Promise<PositionBiasBackwardPlan> {
  return POSITION_BIAS_BACKWARD.plan(device, problem);
}

/** The gradients, each of the shape of its tensor; those that were not asked for are absent. */
export type PositionBiasGradients = { readonly [Name in PositionBiasGradient]?: FloatTensor };

const POSITION_BIAS_BACKWARD = operation<
  PositionBiasBackwardProblem,
  PositionBiasBackwardBindings,
  ResolvedBiasBackward,
  PositionBiasGradients
>({
  name: "positionBiasBackward",
  problem: POSITION_BIAS_BACKWARD_PROBLEM,
  resolve: resolveBiasBackward,
  tensors({ add, own }, { forward, dOutput, gradients, sums }, problem) {
    const { source, isTable, gates, buckets } = forward;
    for (const name of GRADIENTS) {
      const spec = gradients[name];
      if (spec) add(name, spec, problem[name], true);
    }
    add("dOutput", dOutput, problem.dOutput);
    if (isTable) add("table", source, problem.table);
    else add("bias", source, problem.bias);
    for (const name of GATES) if (gates) add(name, gates[name], problem[name]);
    if (buckets) own("tables", [buckets.length], { dtype: "i32", data: buckets });
    const [, heads] = dOutput.shape;
    const diagonals = gradients.dTable && buckets ? heads * buckets.length : 0;
    own("workspace", [Math.max(4, sums.workspace, diagonals)], {});
  },
  kernel: stages,
  results: ({ gradients }) => gradients,
});

function stages(
  { forward, dOutput, gradients, sums, readsBias }: ResolvedBiasBackward,
  { label, device }: Caller,
): Stage[] {
  const { source, isTable, gates, buckets } = forward;
  const { shape } = dOutput;
  const [batch, heads, queries, keys] = shape;
  const gate = (name: string, spec: ResolvedSpec) =>
    broadcastTo(label, name, spec, [batch, heads, queries, 1]);
  const asRows = ({ strides: [byBucket, byHead], ...rest }: ResolvedSpec): ResolvedSpec => ({
    ...rest,
    shape: [1, heads, rest.shape[0], 1],
    strides: [0, byHead, byBucket, 0],
  });
  const gated = gates && {
    residual: gate("update", gates.update),
    shift: gate("reset", gates.reset),
    weight: gate("scale", gates.scale),
  };
  const bias = isTable ? asRows(source) : broadcastTo(label, "bias", source, shape);
  const names = {
    source: isTable ? "table" : "bias",
    residual: "update",
    shift: "reset",
    weight: "scale",
    gradient: "dOutput",
    buckets: "tables",
    diagonals: "workspace",
  };
  const folded = { rows: batch * heads * queries, width: keys };
  const list = sumStages(sums, {
    device,
    folded,
    specsOf: () => ({ source: bias, ...gated, gradient: dOutput }),
    kernelOf: (tensors, choice) => biasSumsSpecialisation(tensors, choice, isTable),
    names,
  });
  const { dTable } = gradients;
  if (!dTable || !buckets || dTable.shape.includes(0)) return list;
  const count = buckets.length;
  const laid = layGradientRows(device, folded, { ...gated, gradient: dOutput });
  const o = layGradientRows(
    device,
    { rows: 0, width: 1 },
    { o: asRows(dTable) },
    {
      kept_rows: dTable.shape[0],
      reduced_rows: shape.includes(0) ? 0 : count,
      n_heads: heads,
    },
  );
  const diagonals: Stage = {
    source: rowGradientKernel(
      "bias_diagonals_backward",
      biasDiagonalsSpecialisation(laid.accesses),
    ),
    names,
    params: laid,
    workgroups: shape.includes(0) ? 0 : Math.ceil((heads * count) / WG_SIZE),
    flops: [Math.max(1, ELEMENT_FLOPS * WG_SIZE * batch * queries), MOST_FLOPS],
  };
  const table: Stage = {
    source: rowGradientKernel("bias_table_backward", biasTableSpecialisation(o.accesses.o)),
    names: { ...names, o: "dTable" },
    params: o,
    workgroups: Math.ceil((heads * dTable.shape[0]) / WG_SIZE),
  };
  // Sums over rows come last, since they have the same workspace.
  return [diagonals, table, ...(readsBias || !isTable ? list : [])];
}

/** Options of {@link relativePositionBiasBackward}. */
export interface RelativePositionBiasBackwardOptions
  extends Pick<
      PositionBiasBackwardProblem,
      "bidirectional" | "maxDistance" | "queryOffset" | "label"
    >,
    RunOptions {
  /**
   * [buckets, H]. Default: a new dense tensor of the dtype of the table, which is the caller's to
   * destroy.
   */
  readonly dTable?: Tensor;
}

/** The names of the options. */
const RELATIVE_OPTIONS: OptionNames<RelativePositionBiasBackwardOptions> = {
  ...RUN_OPTIONS,
  bidirectional: "boolean",
  maxDistance: "number",
  queryOffset: "number",
  label: "string",
  dTable: "any",
};

/**
 * The gradient of {@link relativePositionBias}. See {@link planPositionBiasBackward} for the
 * formula.
 *
 * Resolves once the GPU has accepted the work; `dTable.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param table [buckets, H] f32, f16 or bf16, as the forward call had it
 * @param dOutput [B, H, M, N], the gradient of the bias
 * @returns `{ dTable }` [buckets, H]
 *
 * @example
 * const { dTable } = await relativePositionBiasBackward(table, dOutput, { maxDistance: 64 });
 */
export async function relativePositionBiasBackward(
  table: Tensor,
  dOutput: Tensor,
  options: RelativePositionBiasBackwardOptions = {},
): Promise<{ readonly dTable: FloatTensor }> {
  const name = "relativePositionBiasBackward";
  const taken = await readOptions(name, options, RELATIVE_OPTIONS);
  const { label = name, encoder: _encoder, ...rest } = taken;
  checkTensors(label, { table, dOutput }, { dTable: rest.dTable });
  const problem = { ...rest, table, dOutput, label };
  const results = await POSITION_BIAS_BACKWARD.run({
    device: table.device,
    name,
    problem,
    options: taken,
  });
  return { dTable: results.dTable as FloatTensor };
}

/** Options of {@link gatedPositionBiasBackward}: the gates, and where the gradients go. */
export interface GatedPositionBiasBackwardOptions extends BiasGates<Tensor>, RunOptions {
  /** Which gradients are computed. Default: of the bias and of all gates. */
  readonly gradients?: readonly Exclude<PositionBiasGradient, "dTable">[];
  /** Default: new dense tensors like what they are of, which are the caller's to destroy. */
  readonly dBias?: Tensor;
  /** Of `update`. */
  readonly dUpdate?: Tensor;
  /** Of `reset`. */
  readonly dReset?: Tensor;
  /** Of `scale`. */
  readonly dScale?: Tensor;
  /** Name of GPU objects in errors and captures. Default `"gatedPositionBiasBackward"`. */
  readonly label?: string;
}

/** The names of the options. */
const GATED_OPTIONS: OptionNames<GatedPositionBiasBackwardOptions> = {
  ...RUN_OPTIONS,
  update: "any",
  reset: "any",
  scale: "any",
  gradients: "any",
  dBias: "any",
  dUpdate: "any",
  dReset: "any",
  dScale: "any",
  label: "string",
};

/**
 * The gradients of {@link gatedPositionBias}. See {@link planPositionBiasBackward} for the formula.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param bias [1 or B, H, M, N] f32, f16 or bf16, as the forward call had it
 * @param dOutput [B, H, M, N], the gradient of the output
 * @returns `{ dBias, dUpdate, dReset, dScale }`, those that the option `gradients` names
 *
 * @example
 * const gradients = await gatedPositionBiasBackward(bias, dOutput, { update, reset, scale });
 */
export async function gatedPositionBiasBackward(
  bias: Tensor,
  dOutput: Tensor,
  options: GatedPositionBiasBackwardOptions,
): Promise<Omit<PositionBiasGradients, "dTable">> {
  const name = "gatedPositionBiasBackward";
  const taken = await readOptions(name, options, GATED_OPTIONS);
  const { label = name, encoder: _encoder, gradients, ...tensors } = taken;
  const { update, reset, scale, ...results } = tensors;
  checkTensors(label, { bias, dOutput, update, reset, scale }, results);
  const problem = { ...tensors, ...(gradients && { gradients }), bias, dOutput, label };
  return POSITION_BIAS_BACKWARD.run({ device: bias.device, name, problem, options: taken });
}
