// Biases of scores in memory: T5's, and those that gates of the queries change; the plan, and
// one-liners on top of it.

import { check } from "../errors.ts";
import { type OptionNames, readOptions } from "../given.ts";
import { checkDevice } from "../gpu/buffers.ts";
import { type FloatTensor, resolveSpec, type Tensor } from "../gpu/tensor.ts";
import { pointwiseWorkgroups } from "../kernels/pointwise.ts";
import { positionBiasSpecialisation } from "../kernels/position_bias.ts";
import { rowKernel } from "../kernels/rows.ts";
import { broadcastTo, layRows } from "../operations/row_axes.ts";
import { type OneKernel, planOneKernel, planTensors } from "../plan/one_kernel.ts";
import type { Plan } from "../plan/plan.ts";
import { checkTensors, RUN_OPTIONS, type RunOptions, runOnce } from "../plan/run.ts";
import { checkedSpec, expectApart, expectShape, FLOATS, type ResolvedSpec } from "../plan/specs.ts";
import type { Dtype, TensorSpec } from "../types.ts";
import { distanceBuckets, type RelativeBias, t5Buckets } from "./buckets.ts";

/** Gates of a bias: f32, f16 or bf16, as all three broadcast to [B, H, M, 1]. */
export interface BiasGates<T> {
  /** [B, H, M, 1], before its sigmoid u */
  readonly update: T;
  /** [B, H, M, 1], before its sigmoid r */
  readonly reset: T;
  /** `[H, 1, 1]`: w */
  readonly scale: T;
}

/** The bias that a plan is made for: of `table` or of `bias`. Memory is given at encode. */
export interface PositionBiasProblem
  extends Partial<BiasGates<TensorSpec>>,
    Pick<RelativeBias, "bidirectional" | "maxDistance"> {
  /** [buckets, H] f32, f16 or bf16: T5's, by the bucket of the distance. */
  readonly table?: TensorSpec;
  /** Position of the first query, with a table. Default 0. */
  readonly queryOffset?: number;
  /** f32, f16 or bf16; broadcasts to the output. */
  readonly bias?: TensorSpec;
  /** [B, H, M, N] f32, f16 or bf16. With a bias, default: dense, like it. */
  readonly output?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"positionBias"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
const POSITION_BIAS_PROBLEM: OptionNames<PositionBiasProblem> = {
  update: "any",
  reset: "any",
  scale: "any",
  bidirectional: "boolean",
  maxDistance: "number",
  table: "any",
  queryOffset: "number",
  bias: "any",
  output: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. Those it was made with are
 * the default.
 */
export interface PositionBiasBindings extends Partial<BiasGates<Tensor>> {
  readonly table?: Tensor;
  readonly bias?: Tensor;
  readonly output?: Tensor;
}

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
 * Sources: T5 (arXiv 1910.10683), section 2.1, as {@link t5Buckets} has it; WavLM (arXiv
 * 2110.13900), equations 2 to 5. The option `relativeBias` of attention looks T5's table up inside
 * the kernel, and needs no such memory; this is for models that hand a bias on from layer to layer.
 * Sizes, strides and distances compile nothing.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const plan = await planPositionBias(device, { table, output: { shape: [1, 12, 128, 128] } });
 * plan.encode(pass, { output });
 */
export async function planPositionBias(
  device: GPUDevice,
  problem: PositionBiasProblem,
): Promise<PositionBiasPlan> {
  const taken = await readOptions("positionBias", problem, POSITION_BIAS_PROBLEM);
  const { plan, allocated } = await prepareBias(device, taken, "positionBias");
  await allocated;
  return plan;
}

const GATES = ["update", "reset", "scale"] as const;

/**
 * A plan, and a promise that rejects if its buffers could not be had: for callers with more to wait
 * for.
 */
async function prepareBias(device: GPUDevice, problem: PositionBiasProblem, name: string) {
  const { label = name } = problem;
  checkDevice(device);
  const resolved = resolveBias(label, problem);
  const { output, source, isTable, gates, buckets } = resolved;
  const tensors = planTensors(device, label, ({ add, own }) => {
    add("output", output, problem.output, true);
    if (isTable) add("table", source, problem.table);
    else add("bias", source, problem.bias);
    for (const name of GATES) if (gates) add(name, gates[name], problem[name]);
    if (buckets) own("tables", [buckets.length], { dtype: "i32", data: buckets });
  });
  const { plan, allocated } = await planOneKernel<PositionBiasBindings>(
    device,
    label,
    tensors,
    () => kernelOf(device, label, resolved),
  );
  return { plan, allocated, output };
}

interface ResolvedBias {
  readonly output: ResolvedSpec;
  /** The table or the bias. */
  readonly source: ResolvedSpec;
  readonly isTable: boolean;
  readonly gates: BiasGates<ResolvedSpec> | undefined;
  /** Of the distances, from that of the last query and the first key on. */
  readonly buckets: Int32Array<ArrayBuffer> | undefined;
}

function resolveBias(label: string, problem: PositionBiasProblem): ResolvedBias {
  const { table, bias, queryOffset = 0 } = problem;
  const isTable = table !== undefined;
  check(
    isTable !== (bias !== undefined),
    "argument",
    () => `${label}: give a table or a bias, one of the two.`,
  );
  check(Number.isSafeInteger(queryOffset), "argument", () => {
    return `${label}: queryOffset must be a whole number, got ${queryOffset}.`;
  });
  const source = checkedSpec(
    label,
    isTable ? "table" : "bias",
    (table ?? bias) as TensorSpec,
    FLOATS,
  );
  check(problem.output !== undefined || !isTable, "argument", () => {
    return `${label}: output is needed with a table, and says how many queries and keys there are.`;
  });
  const output = problem.output
    ? checkedSpec(label, "output", problem.output, FLOATS)
    : resolveSpec("output", { shape: source.shape, dtype: source.dtype });
  check(
    output.shape.length === 4,
    "argument",
    () => `${label}: output must have the four axes BHMN, got shape [${output.shape.join(", ")}].`,
  );
  expectApart(label, "output", output);
  const [, heads, queries, keys] = output.shape;
  if (isTable)
    expectShape(label, "table", source, [source.shape[0], heads], "by buckets and heads");
  const given = GATES.filter((name) => problem[name] !== undefined);
  check(
    given.length === 0 || given.length === GATES.length,
    "argument",
    () =>
      `${label}: update, reset and scale belong together; only ${given.join(" and ")} ${given.length === 1 ? "was" : "were"} given.`,
  );
  const gate = (name: keyof BiasGates<unknown>) =>
    checkedSpec(label, name, problem[name] as TensorSpec, FLOATS);
  const gates = given.length
    ? { update: gate("update"), reset: gate("reset"), scale: gate("scale") }
    : undefined;
  if (!isTable) return { output, source, isTable, gates, buckets: undefined };
  const { bidirectional = true, maxDistance = 128 } = problem;
  const options = { bidirectional, maxDistance, buckets: source.shape[0] };
  distanceBuckets(label, options, source.shape[0]);
  const count = Math.max(1, queries + keys - 1);
  const first = Math.max(0, queries - 1) + queryOffset;
  return {
    output,
    source,
    isTable,
    gates,
    buckets: t5Buckets(1, count, { ...options, queryOffset: first }),
  };
}

function kernelOf(
  device: GPUDevice,
  label: string,
  { output, source, isTable, gates }: ResolvedBias,
): OneKernel {
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
  /** M and N. */
  readonly seqQ: number;
  /** N, keys. */
  readonly seqKv: number;
  /** Of the new tensor. Default that of the table. */
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
 * @param table [buckets, H] f32, f16 or bf16
 * @returns `{ output }` [1, H, M, N], which is the caller's to destroy
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @example
 * const { output: bias } = await relativePositionBias(table, { seqQ: 128, seqKv: 128 });
 */
export async function relativePositionBias(
  table: Tensor,
  options: RelativePositionBiasOptions,
): Promise<{ readonly output: FloatTensor }> {
  const name = "relativePositionBias";
  const {
    seqQ,
    seqKv,
    dtype,
    label = name,
    encoder,
    ...rest
  } = await readOptions(name, options, RELATIVE_OPTIONS);
  checkTensors(label, { table });
  const shape = [1, table.shape[1] ?? 0, seqQ, seqKv];
  const problem = { ...rest, table, label, output: { shape, dtype: dtype ?? table.dtype } };
  const { plan, allocated, output } = await prepareBias(table.device, problem, label);
  return runOnce(table.device, label, { plan, allocated }, { encoder }, (make) => ({
    output: make("output", output.shape, output.dtype),
  })) as Promise<{ output: FloatTensor }>;
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
 * @param bias [1 or B, H, M, N] f32, f16 or bf16
 * @returns `{ output }` [B, H, M, N], B that of the gate `update`
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @example
 * const { output } = await gatedPositionBias(bias, { update, reset, scale });
 */
export async function gatedPositionBias(
  bias: Tensor,
  options: GatedPositionBiasOptions,
): Promise<{ readonly output: FloatTensor }> {
  const name = "gatedPositionBias";
  const {
    output: given,
    label = name,
    encoder,
    ...gates
  } = await readOptions(name, options, GATED_OPTIONS);
  const { update, reset, scale } = gates;
  checkTensors(label, {
    bias,
    update,
    reset,
    scale,
    ...(given !== undefined && { output: given }),
  });
  const shape = [update.shape[0], ...bias.shape.slice(1)];
  const problem = { ...gates, bias, label, output: given ?? { shape, dtype: bias.dtype } };
  const { plan, allocated, output } = await prepareBias(bias.device, problem, label);
  return runOnce(bias.device, label, { plan, allocated }, { encoder }, (make) => ({
    output: given ?? make("output", output.shape, output.dtype),
  })) as Promise<{ output: FloatTensor }>;
}
