// The gradient of an embedding: the plan, and the one-liner on top of it.

import { check } from "../../errors.ts";
import { isLength, type OptionNames, readOptions } from "../../given.ts";
import { type FloatTensor, resolveSpec, type Tensor } from "../../gpu/tensor.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../../plan/operation.ts";
import type { Plan } from "../../plan/plan.ts";
import { checkTensors, type RunOptions } from "../../plan/run.ts";
import {
  bindingBase,
  checkedSpec,
  expectApart,
  expectShape,
  FLOATS,
  type ResolvedSpec,
} from "../../plan/specs.ts";
import type { TensorSpec } from "../../types.ts";
import { alongRows, foldRows } from "../row_axes.ts";
import { type EmbeddingProblem, resolveTable } from "./embedding.ts";
import { ownTableMemory, tableStages } from "./table_gradient.ts";

/**
 * The gradient of an embedding that a plan is made for. Shapes and strides are fixed by the plan;
 * memory is given at encode.
 */
export interface EmbeddingBackwardProblem extends Pick<EmbeddingProblem, "ids" | "scale"> {
  /** [V, E] f32, f16 or bf16: the table. Only its shape and dtype are read. */
  readonly weight: TensorSpec;
  /** [..., E] f32, f16 or bf16: the gradient of the output. */
  readonly dOutput: TensorSpec;
  /** A row of the table that gets no gradient, as the one that pads sequences. Default: none. */
  readonly paddingId?: number;
  /** [V, E] f32, f16 or bf16. Default: dense, the dtype of weight. */
  readonly dWeight?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"embeddingBackward"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
const EMBEDDING_BACKWARD_PROBLEM: OptionNames<EmbeddingBackwardProblem> = {
  weight: "any",
  ids: "any",
  dOutput: "any",
  scale: "number",
  paddingId: "number",
  dWeight: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface EmbeddingBackwardBindings {
  readonly ids?: Tensor;
  readonly dOutput?: Tensor;
  readonly dWeight?: Tensor;
}

/** A compiled gradient of an embedding. */
export type EmbeddingBackwardPlan = Plan<EmbeddingBackwardBindings>;

/**
 * Compiles the gradient of {@link planEmbedding} by its table:
 *
 * ```
 * dWeight[v, :] = scale * sum of dOutput[..., :] over the places where ids is v
 * ```
 *
 * It is 0 for rows that no id names and for `paddingId`. An id that the table has no row for adds
 * nothing. Rows of one id are added in their order, by a sum in f32 that carries what it loses: its
 * error does not grow with their number, and the same inputs on the same device give the same bits.
 * The order is found by a sort of the ids in each run, as {@link planPositionEncodingBackward} does
 * it and at the same cost: 12 bytes of memory an id, three small kernels for each 8 bits of V, and
 * no time that grows with V times the number of ids.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const shape = [8, 128];
 * const plan = await planEmbeddingBackward(device, {
 *   weight: { shape: [50257, 768] },
 *   ids: { shape, dtype: "i32" },
 *   dOutput: { shape: [...shape, 768] },
 * });
 * plan.encode(pass, { ids: tokens, dOutput, dWeight });
 */
export function planEmbeddingBackward(
  device: GPUDevice,
  problem: EmbeddingBackwardProblem,
): Promise<EmbeddingBackwardPlan> {
  return EMBEDDING_BACKWARD.plan(device, problem);
}

interface ResolvedEmbeddingBackward {
  readonly ids: ResolvedSpec;
  readonly dOutput: ResolvedSpec;
  readonly dWeight: ResolvedSpec;
  readonly scale: number;
  readonly paddingId: number | undefined;
  /** dOutput as [B, M, E], and the strides of ids along B and M. */
  readonly gradient: ResolvedSpec;
  readonly idStrides: readonly number[];
}

const EMBEDDING_BACKWARD = operation<
  EmbeddingBackwardProblem,
  EmbeddingBackwardBindings,
  ResolvedEmbeddingBackward,
  { readonly dWeight: FloatTensor }
>({
  name: "embeddingBackward",
  problem: EMBEDDING_BACKWARD_PROBLEM,
  resolve,
  tensors({ add, own }, { ids, dOutput, dWeight, gradient }, problem) {
    add("dWeight", dWeight, problem.dWeight, true);
    add("dOutput", dOutput, problem.dOutput);
    add("ids", ids, problem.ids);
    ownTableMemory(own, { gradient, table: dWeight });
  },
  kernel,
  results: ({ dWeight }) => ({ dWeight }),
});

function resolve(problem: EmbeddingBackwardProblem, { label }: Caller): ResolvedEmbeddingBackward {
  const { paddingId } = problem;
  const { weight, ids, scale, shape } = resolveTable(label, problem);
  const dOutput = checkedSpec(label, "dOutput", problem.dOutput, FLOATS);
  expectShape(label, "dOutput", dOutput, shape, "a row of weight for each id");
  check(
    paddingId === undefined || (isLength(paddingId) && paddingId < weight.shape[0]),
    "argument",
    () =>
      `${label}: paddingId must be a row of weight, from 0 up to ${weight.shape[0] - 1}, got ${paddingId}.`,
  );
  const dWeight = problem.dWeight
    ? checkedSpec(label, "dWeight", problem.dWeight, FLOATS)
    : resolveSpec("dWeight", { shape: weight.shape, dtype: weight.dtype });
  expectShape(label, "dWeight", dWeight, weight.shape, "like weight");
  expectApart(label, "dWeight", dWeight);
  const rows = foldIds(label, dOutput, ids);
  return { ids, dOutput, dWeight, scale, paddingId, ...rows };
}

/** Joins the axes of ids to two at most. */
function foldIds(label: string, dOutput: ResolvedSpec, ids: ResolvedSpec) {
  const width = dOutput.shape[dOutput.shape.length - 1];
  if (dOutput.shape.includes(0)) {
    const gradient = { ...dOutput, shape: [0, 1, width], strides: [0, 0, 1] };
    return { gradient, idStrides: [0, 0] };
  }
  const index = alongRows(label, "ids", ids, dOutput.shape);
  const folded = foldRows<"o" | "index">(label, { o: dOutput, index }, 1, {
    o: "dOutput",
    index: "ids",
  });
  const { o, index: places } = folded.specs;
  check(
    o.shape[0] === 1,
    "argument",
    () =>
      `${label}: the strides of dOutput and ids leave 3 axes of [${ids.shape.join(", ")}], and a kernel takes 2; make one of them dense with copyTensor().`,
  );
  const gradient = { ...o, shape: o.shape.slice(1), strides: o.strides.slice(1) };
  return { gradient, idStrides: (places as ResolvedSpec).strides.slice(1, 3) };
}

function kernel(
  { ids, gradient, idStrides, dWeight, scale, paddingId }: ResolvedEmbeddingBackward,
  { device }: Caller,
): Stage[] {
  return tableStages(device, {
    gradient,
    gradientName: "dOutput",
    table: dWeight,
    tableName: "dWeight",
    positions: "ids",
    values: {
      position_offset: 0, // read by what the kernels link, and don't call
      positions_base: bindingBase(device, ids),
      positions_stride_s: 0,
      positions_stride_b: idStrides[0],
      positions_stride_m: idStrides[1],
      positions_step: 0,
    },
    isOrdered: false,
    factor: scale,
    leftOut: paddingId,
  });
}

/** Options of {@link embeddingBackward}. */
export interface EmbeddingBackwardOptions extends RunOptions {
  /** Factor of the rows in the forward call. Default 1. */
  readonly scale?: number;
  /** A row of the table that gets no gradient. Default: none. */
  readonly paddingId?: number;
  /**
   * Where the gradient goes. Default: a new dense tensor of the shape and dtype of weight, which is
   * the caller's to destroy.
   */
  readonly dWeight?: Tensor;
  /** Name in errors and captures. */
  readonly label?: string;
}

/** The names of the options. */
const EMBEDDING_BACKWARD_OPTIONS = optionsBeside(
  EMBEDDING_BACKWARD_PROBLEM,
  "weight",
  "ids",
  "dOutput",
);

/**
 * The gradient of {@link embedding} by its table. See {@link planEmbeddingBackward} for the formula
 * and the rules.
 *
 * Resolves once the GPU has accepted the work; `dWeight.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param weight [V, E], the table; only its shape and dtype are read
 * @param ids i32 or u32, as the forward call had them
 * @param dOutput [..., E] f32, f16 or bf16, the gradient of the output
 * @returns `{ dWeight }` [V, E]
 *
 * @example
 * const { dWeight } = await embeddingBackward(weight, ids, dOutput, { paddingId: 0 });
 */
export async function embeddingBackward(
  weight: Tensor,
  ids: Tensor,
  dOutput: Tensor,
  given: EmbeddingBackwardOptions = {},
): Promise<{ readonly dWeight: FloatTensor }> {
  const name = "embeddingBackward";
  const options = await readOptions(name, given, EMBEDDING_BACKWARD_OPTIONS);
  const { label = name, dWeight } = options;
  checkTensors(label, { weight, ids, dOutput }, { dWeight });
  const problem = { ...options, weight, ids, dOutput };
  return EMBEDDING_BACKWARD.run({ device: weight.device, name, problem, options });
}
