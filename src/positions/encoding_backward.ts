// The gradients of absolute position encodings: the plan, and the one-liner on top of it.

import { readOptions } from "../given.ts";
import type { FloatTensor, Tensor } from "../gpu/tensor.ts";
import { isAligned } from "../kernels/access.ts";
import {
  DIGITS,
  digitShifts,
  sortBlocks,
  sumParts,
  TABLE_GRADIENT_PARAMS,
  type TableGradientSpecialisation,
  tableGradientKernel,
  vec4Workgroups,
} from "../kernels/gradients/table.ts";
import type { UniformValues } from "../kernels/uniform.ts";
import { accessOf, addresses } from "../plan/access.ts";
import type { Operands } from "../plan/operand.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../plan/operation.ts";
import type { Plan } from "../plan/plan.ts";
import { checkTensors, type RunOptions } from "../plan/run.ts";
import { bindingBase, type ResolvedSpec } from "../plan/specs.ts";
import { withHeads } from "./encoding.ts";
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
    const [batch, rows, width] = dOutput.shape;
    const all = batch * rows;
    addPositions(positions, { add, own });
    // The plan's names: orders of rows are its tables and blocks, counts its workspace, and sums
    // between dispatches its angles.
    if (order) own("tables", [order.length], { dtype: "i32", data: order });
    else {
      for (const name of ["tables", "blocks"]) own(name, [all], { dtype: "i32" });
      own("workspace", [sortBlocks(all) * DIGITS], { dtype: "i32" });
    }
    const vec4s = dTable.shape[0] * Math.ceil(width / 4);
    if (sumParts(all).length > 1) own("angles", [8 * vec4s], {});
  },
  kernel: stages,
  results: ({ dX, dTable }) => ({ dX, dTable }),
});

function stages(
  { dOutput, dX, dTable, scale, positions, order }: ResolvedEncodingBackward,
  { device }: Caller,
  operands: Operands,
): Stage[] {
  const [batch, rows, width] = dOutput.shape;
  const all = batch * rows;
  const bhmd = { layout: "bhmd" } as const;
  const at = (spec: ResolvedSpec | undefined) =>
    spec && { spec: withHeads(spec), base: bindingBase(device, spec) };
  const gradient = at(dOutput) as NonNullable<ReturnType<typeof at>>;
  const read = accessOf(device, gradient);
  const stored = dTable && positionsOperand(positions);
  const shared = {
    rows,
    all_rows: all,
    width,
    scale,
    table_rows: dTable?.shape[0] ?? 0,
    blocks: sortBlocks(all),
    ...addresses("gradient", "n", gradient, isAligned(read), bhmd),
    ...positionParams(device, positions, stored ? operands.get(stored)?.spec : undefined),
  };
  const stage = (
    spec: TableGradientSpecialisation,
    workgroups: number,
    more: UniformValues,
    names: Readonly<Record<string, string>> = {},
  ): Stage => ({
    source: tableGradientKernel(spec),
    names: {
      gradient: "dOutput",
      counts: "workspace",
      sums: "angles",
      ...(stored && { positions: stored }),
      ...names,
    },
    params: {
      struct: TABLE_GRADIENT_PARAMS,
      values: { digit_shift: 0, part_begin: 0, part_end: 0, ...shared, ...more },
    },
    workgroups,
  });
  const into = (spec: ResolvedSpec) => {
    const operand = at(spec) as NonNullable<ReturnType<typeof at>>;
    const access = accessOf(device, operand);
    return { access, values: addresses("o", "n", operand, isAligned(access), bhmd) };
  };
  const list: Stage[] = [];
  if (dX) {
    const { access, values } = into(dX);
    const spec = { root: "position_encoding_backward", gradient: read, o: access } as const;
    list.push(stage(spec, vec4Workgroups(all, width), values, { o: "dX" }));
  }
  if (!dTable) return list;
  const inMemory = stored !== undefined;
  const none = into(dTable).values;
  let sorted = "tables";
  if (!order) {
    for (const [pass, shift] of digitShifts(dTable.shape[0]).entries()) {
      const next = sorted === "tables" ? "blocks" : "tables";
      const names = { order: sorted, next_order: next };
      const values = { ...none, digit_shift: shift };
      const look = { positions: inMemory, ordered: pass > 0 };
      const { blocks } = shared;
      list.push(
        stage({ root: "table_count_backward", ...look }, blocks, values, names),
        stage({ root: "table_offsets_backward" }, Math.min(1, blocks), values, names),
        stage({ root: "table_scatter_backward", ...look }, blocks, values, names),
      );
      sorted = next;
    }
  }
  const { access, values } = into(dTable);
  const parts = sumParts(all);
  const spec = {
    root: "table_backward",
    gradient: read,
    o: access,
    positions: inMemory,
    ordered: true,
    carried: parts.length > 1,
  } as const;
  const workgroups = vec4Workgroups(dTable.shape[0], width);
  const names = { o: "dTable", order: sorted };
  return [...list, ...parts.map((part) => stage(spec, workgroups, { ...values, ...part }, names))];
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
