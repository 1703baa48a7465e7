// The gradients of absolute position encodings: the plan, and the one-liner on top of it.

import { readOptions } from "../given.ts";
import type { FloatTensor, Tensor } from "../gpu/tensor.ts";
import {
  TABLE_GRADIENT_PARAMS,
  tableGradientKernel,
  vec4Workgroups,
} from "../kernels/gradients/table.ts";
import { layTableRows, ownTableMemory, tableStages } from "../operations/tables/table_gradient.ts";
import type { Operands } from "../plan/operand.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../plan/operation.ts";
import type { Plan } from "../plan/plan.ts";
import { checkTensors, type RunOptions } from "../plan/run.ts";
import type { ResolvedSpec } from "../plan/specs.ts";
import {
  POSITION_ENCODING_BACKWARD_PROBLEM,
  type PositionEncodingBackwardBindings,
  type PositionEncodingBackwardProblem,
  type ResolvedEncodingBackward,
  resolveEncodingBackward,
} from "./encoding_backward_problem.ts";
import { addPositions, positionParams, positionsOperand } from "./positions.ts";

/** Compiled gradients of a position encoding. */
export type PositionEncodingBackwardPlan = Plan<PositionEncodingBackwardBindings>;

/**
 * Compiles the gradients of {@link planPositionEncoding}:
 *
 * ```
 * dX[b, m, :]     = scale * dOutput[b, m, :]
 * dTable[p, :]    = sum of dOutput[b, m, :] over the rows at position p
 * ```
 *
 * Sinusoidal encodings have no gradient, so without a table there is dX alone. A position from the
 * GPU that the table has no row for adds nothing.
 *
 * Rows of one position are added in their order, by a sum in f32 that carries what it loses, so
 * that its error does not grow with their number and the same inputs on the same device give the
 * same bits. The order is found by a sort: on the host if positions are numbers, once for the plan;
 * otherwise in each run, by digits of 8 bits. That takes three small kernels for each digit of P,
 * and 12 bytes of memory for each of the B M rows; no time grows with P B M. The sums take one
 * reading of dOutput, and a bisection of log2(B M) steps for each four elements of the table. One
 * dispatch adds 65,536 rows at most. Lengths, strides and positions compile nothing.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const plan = await planPositionEncodingBackward(device, {
 *   dOutput: { shape: [8, 128, 512] },
 *   table: { shape: [1024, 512] },
 * });
 * plan.encode(encoder, { dOutput, dX, dTable });
 */
export function planPositionEncodingBackward(
  device: GPUDevice,
  problem: PositionEncodingBackwardProblem,
): Promise<PositionEncodingBackwardPlan> {
  return POSITION_ENCODING_BACKWARD.plan(device, problem);
}

/** The gradients; those that were not asked for are absent. */
export interface PositionEncodingGradients {
  /** [B, M, D] */
  readonly dX?: FloatTensor;
  /** [P, D] */
  readonly dTable?: FloatTensor;
}

const POSITION_ENCODING_BACKWARD = operation<
  PositionEncodingBackwardProblem,
  PositionEncodingBackwardBindings,
  ResolvedEncodingBackward,
  PositionEncodingGradients
>({
  name: "positionEncodingBackward",
  problem: POSITION_ENCODING_BACKWARD_PROBLEM,
  resolve: resolveEncodingBackward,
  tensors({ add, own }, { dOutput, dX, dTable, positions, order }, problem) {
    if (dX) add("dX", dX, problem.dX, true);
    if (dTable) add("dTable", dTable, problem.dTable, true);
    add("dOutput", dOutput, problem.dOutput);
    if (!dTable) return;
    addPositions(positions, { add, own });
    ownTableMemory(own, { gradient: dOutput, table: dTable }, order);
  },
  kernel: stages,
  results: ({ dX, dTable }) => ({ dX, dTable }),
});

function stages(
  { dOutput, dX, dTable, scale, positions, order }: ResolvedEncodingBackward,
  { device }: Caller,
  operands: Operands,
): Stage[] {
  const stored = dTable && positionsOperand(positions);
  const ofX = dX ? [scaledStage(device, { dOutput, dX, scale })] : [];
  if (!dTable) return ofX;
  const ofTable = tableStages(device, {
    gradient: dOutput,
    gradientName: "dOutput",
    table: dTable,
    tableName: "dTable",
    positions: stored,
    values: positionParams(device, positions, stored ? operands.get(stored)?.spec : undefined),
    isOrdered: order !== undefined,
  });
  return [...ofX, ...ofTable];
}

/** Writes the gradient of x. */
function scaledStage(
  device: GPUDevice,
  { dOutput, dX, scale }: Readonly<Record<"dOutput" | "dX", ResolvedSpec>> & { scale: number },
): Stage {
  const [batch, rows, width] = dOutput.shape;
  const from = layTableRows(device, "gradient", dOutput);
  const into = layTableRows(device, "o", dX);
  const all = batch * rows;
  return {
    source: tableGradientKernel({
      root: "position_encoding_backward",
      gradient: from.access,
      o: into.access,
    }),
    names: { gradient: "dOutput", o: "dX" },
    params: {
      struct: TABLE_GRADIENT_PARAMS,
      values: { rows, all_rows: all, width, scale, ...from.values, ...into.values },
    },
    workgroups: vec4Workgroups(all, width),
  };
}

/**
 * Options of {@link positionEncodingBackward}: those of a problem, with tensors in place of specs.
 */
export interface PositionEncodingBackwardOptions
  extends Omit<PositionEncodingBackwardProblem, "dOutput" | "dX" | "dTable" | "table">,
    RunOptions {
  /** [P, D], the learned table; only its shape and dtype are read. Default: sinusoidal. */
  readonly table?: Tensor;
  /**
   * Where the gradients go. Default: new dense tensors of the dtypes of dOutput and of the table,
   * which are the caller's to destroy.
   */
  readonly dX?: Tensor;
  /** Of the table. */
  readonly dTable?: Tensor;
}

/** The names of the options. */
const POSITION_ENCODING_BACKWARD_OPTIONS = optionsBeside(
  POSITION_ENCODING_BACKWARD_PROBLEM,
  "dOutput",
);

/**
 * The gradients of {@link positionEncoding}. See {@link planPositionEncodingBackward} for the
 * formula, the rules and the cost.
 *
 * Resolves once the GPU has accepted the work; `dX.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param dOutput [B, M, D] f32, f16 or bf16, the gradient of the output
 * @returns `{ dX, dTable }`, those that exist and that the option `gradients` names
 *
 * @example
 * const positionIds = [0, 1, 2, 0, 1];
 * const { dX, dTable } = await positionEncodingBackward(dOutput, { table, positionIds });
 */
export async function positionEncodingBackward(
  dOutput: Tensor,
  asked: PositionEncodingBackwardOptions = {},
): Promise<PositionEncodingGradients> {
  const name = "positionEncodingBackward";
  const options = await readOptions(name, asked, POSITION_ENCODING_BACKWARD_OPTIONS);
  const { table, dX, dTable } = options;
  checkTensors(options.label ?? name, { dOutput }, { table, dX, dTable });
  const problem = { ...options, dOutput };
  return POSITION_ENCODING_BACKWARD.run({ device: dOutput.device, name, problem, options });
}
