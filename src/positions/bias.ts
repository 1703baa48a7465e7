// Biases of scores in memory: T5's, and biases that gates of the queries change. The plan, and
// one-liners on top of it.

import { type OptionNames, readOptions } from "../given.ts";
import type { FloatTensor, Tensor } from "../gpu/tensor.ts";
import { pointwiseWorkgroups } from "../kernels/pointwise.ts";
import { positionBiasSpecialisation } from "../kernels/position_bias.ts";
import { rowKernel } from "../kernels/rows.ts";
import { broadcastTo, layRows } from "../operations/row_axes.ts";
import { type Caller, operation, type Stage } from "../plan/operation.ts";
import type { Plan } from "../plan/plan.ts";
import { checkTensors, RUN_OPTIONS, type RunOptions } from "../plan/run.ts";
import type { ResolvedSpec } from "../plan/specs.ts";
import type { Dtype } from "../types.ts";
import {
  type BiasGates,
  GATES,
  POSITION_BIAS_PROBLEM,
  type PositionBiasBindings,
  type PositionBiasProblem,
  type ResolvedBias,
  resolveBias,
} from "./bias_problem.ts";

/** A compiled bias. */
export type PositionBiasPlan = Plan<PositionBiasBindings>;

/**
 * Compiles a bias of scores in memory, to give to attention as `bias`:
 *
 * ```
 * bias[b, h, i, j] = table[bucket(j - p), h]     query i stands at p = i + queryOffset; or a tensor
 * output = bias,  or with gates  (u (r w - 1) + 2) bias
 * u = sigmoid(update), r = sigmoid(reset), w = scale
 * ```
 *
 * Sources: T5 (arXiv 1910.10683), section 2.1, with the buckets of {@link t5Buckets}; WavLM (arXiv
 * 2110.13900), equations 2 to 5. The option `relativeBias` of attention looks T5's table up inside
 * the kernel, and needs no memory for a bias. A plan of this kind is for models that hand a bias on
 * from layer to layer. Sizes, strides and distances compile nothing.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const plan = await planPositionBias(device, { table, output: { shape: [1, 12, 128, 128] } });
 * plan.encode(pass, { output });
 */
export function planPositionBias(
  device: GPUDevice,
  problem: PositionBiasProblem,
): Promise<PositionBiasPlan> {
  return POSITION_BIAS.plan(device, problem);
}

const POSITION_BIAS = operation<
  PositionBiasProblem,
  PositionBiasBindings,
  ResolvedBias,
  { readonly output: FloatTensor }
>({
  name: "positionBias",
  problem: POSITION_BIAS_PROBLEM,
  resolve: resolveBias,
  tensors({ add, own }, { output, source, isTable, gates, buckets }, problem) {
    add("output", output, problem.output, true);
    if (isTable) add("table", source, problem.table);
    else add("bias", source, problem.bias);
    for (const name of GATES) if (gates) add(name, gates[name], problem[name]);
    if (buckets) own("tables", [buckets.length], { dtype: "i32", data: buckets });
  },
  kernel,
  results: ({ output }) => ({ output }),
});

function kernel(
  { output, source, isTable, gates }: ResolvedBias,
  { label, device }: Caller,
): Stage {
  const { shape } = output;
  const [batch, heads, queries, keys] = shape;
  const gate = (name: string, spec: ResolvedSpec) =>
    broadcastTo(label, name, spec, [batch, heads, queries, 1]);
  const [byBucket, byHead] = source.strides;
  const rows = isTable
    ? { ...source, shape: [1, heads, source.shape[0], 1], strides: [0, byHead, byBucket, 0] }
    : broadcastTo(label, "bias", source, shape);
  const specs = {
    source: rows,
    ...(gates && {
      residual: gate("update", gates.update),
      shift: gate("reset", gates.reset),
      weight: gate("scale", gates.scale),
    }),
    o: output,
  };
  const { accesses, params } = layRows(device, {
    specs,
    rows: batch * heads * queries,
    width: keys,
  });
  return {
    source: rowKernel("position_bias", positionBiasSpecialisation(accesses, isTable)),
    names: {
      source: isTable ? "table" : "bias",
      residual: "update",
      shift: "reset",
      weight: "scale",
      o: "output",
      buckets: "tables",
    },
    params,
    workgroups: shape.includes(0) ? 0 : pointwiseWorkgroups(batch * heads * queries, keys),
  };
}

/** Options of {@link relativePositionBias}. */
export interface RelativePositionBiasOptions
  extends Pick<PositionBiasProblem, "bidirectional" | "maxDistance" | "queryOffset" | "label">,
    RunOptions {
  /** M, queries. */
  readonly seqQ: number;
  /** N, keys. */
  readonly seqKv: number;
  /** The dtype of the new tensor. Default: that of the table. */
  readonly dtype?: Dtype;
}

/** The names of the options. */
const RELATIVE_OPTIONS: OptionNames<RelativePositionBiasOptions> = {
  ...RUN_OPTIONS,
  bidirectional: "boolean",
  maxDistance: "number",
  queryOffset: "number",
  label: "string",
  seqQ: "number",
  seqKv: "number",
  dtype: "string",
};

/**
 * T5's bias of every key for every query, in memory. See {@link planPositionBias} for the formula.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param table [buckets, H] f32, f16 or bf16
 * @returns `{ output }` [1, H, M, N], which is the caller's to destroy
 *
 * @example
 * const { output: bias } = await relativePositionBias(table, { seqQ: 128, seqKv: 128 });
 */
export async function relativePositionBias(
  table: Tensor,
  options: RelativePositionBiasOptions,
): Promise<{ readonly output: FloatTensor }> {
  const name = "relativePositionBias";
  const taken = await readOptions(name, options, RELATIVE_OPTIONS);
  const { seqQ, seqKv, dtype, label = name, encoder, ...rest } = taken;
  checkTensors(label, { table });
  const shape = [1, table.shape[1] ?? 0, seqQ, seqKv];
  const problem = { ...rest, table, label, output: { shape, dtype: dtype ?? table.dtype } };
  return POSITION_BIAS.run({ device: table.device, name, problem, options: { encoder } });
}

/** Options of {@link gatedPositionBias}: the gates, and where the result goes. */
export interface GatedPositionBiasOptions extends BiasGates<Tensor>, RunOptions {
  /**
   * [B, H, M, N]. Default: a new dense tensor of the dtype of the bias, which is the caller's to
   * destroy.
   */
  readonly output?: Tensor;
  /** Name of GPU objects in errors and captures. Default `"positionBias"`. */
  readonly label?: string;
}

/** The names of the options. */
const GATED_OPTIONS: OptionNames<GatedPositionBiasOptions> = {
  ...RUN_OPTIONS,
  update: "any",
  reset: "any",
  scale: "any",
  output: "any",
  label: "string",
};

/**
 * A bias that gates of each query change, as in WavLM. See {@link planPositionBias} for the
 * formula.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param bias [1 or B, H, M, N] f32, f16 or bf16
 * @returns `{ output }` [B, H, M, N], with the B of the gate `update`
 *
 * @example
 * const { output } = await gatedPositionBias(bias, { update, reset, scale });
 */
export async function gatedPositionBias(
  bias: Tensor,
  options: GatedPositionBiasOptions,
): Promise<{ readonly output: FloatTensor }> {
  const name = "gatedPositionBias";
  const taken = await readOptions(name, options, GATED_OPTIONS);
  const { output, label = name, encoder, ...gates } = taken;
  const { update, reset, scale } = gates;
  checkTensors(label, { bias, update, reset, scale }, { output });
  const like = { shape: [update.shape[0], ...bias.shape.slice(1)], dtype: bias.dtype };
  const problem = { ...gates, bias, label, output: output ?? like };
  return POSITION_BIAS.run({ device: bias.device, name, problem, options: taken });
}
