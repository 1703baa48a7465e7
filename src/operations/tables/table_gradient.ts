// The gradient of a table whose rows were looked up, by numbers or positions: the memory and the
// stages that sort the rows and sum those of one row of the table.

import { isAligned } from "../../kernels/access.ts";
import {
  DIGITS,
  digitShifts,
  sortBlocks,
  sumParts,
  TABLE_GRADIENT_PARAMS,
  type TableGradientSpecialisation,
  tableGradientKernel,
  vec4Workgroups,
} from "../../kernels/gradients/table.ts";
import type { UniformValues } from "../../kernels/uniform.ts";
import { accessOf, addresses } from "../../plan/access.ts";
import type { Stage } from "../../plan/operation.ts";
import { bindingBase, type ResolvedSpec } from "../../plan/specs.ts";
import type { PlanTensors } from "../../plan/tensors.ts";
import { withHeads } from "../row_axes.ts";

/** A row of the table that is left out is none. */
const NONE = 0xffffffff;

export interface TableGradient {
  /** [B, M, D], the gradients of the rows that were looked up, and its name in the plan. */
  readonly gradient: ResolvedSpec;
  readonly gradientName: string;
  /** [P, D], what is written, and its name. */
  readonly table: ResolvedSpec;
  readonly tableName: string;
  /** The name of the tensor that says which row of the table each row was, if one does. */
  readonly positions: string | undefined;
  /** What the uniform has to say of positions. */
  readonly values: UniformValues;
  /** Whether the plan has the rows in their order already. */
  readonly isOrdered: boolean;
  /** Factor of the sums. Default 1. */
  readonly factor?: number | undefined;
  /** A row of the table that gets no gradient. Default: none. */
  readonly leftOut?: number | undefined;
}

/** Rows of a rank of three, [B, M, D]. */
const rowsOf = ({ shape: [batch, rows] }: ResolvedSpec) => batch * rows;

/**
 * Adds what a plan needs to sum rows: an order of them that the host knows, or memory to sort them
 * in, and sums between dispatches. The plan's names: orders of rows are its tables and blocks,
 * counts its workspace, and sums between dispatches its angles.
 */
export function ownTableMemory(
  own: PlanTensors["own"],
  { gradient, table }: Pick<TableGradient, "gradient" | "table">,
  order?: Int32Array<ArrayBuffer>,
): void {
  const all = rowsOf(gradient);
  if (order) own("tables", [order.length], { dtype: "i32", data: order });
  else {
    for (const name of ["tables", "blocks"]) own(name, [all], { dtype: "i32" });
    own("workspace", [sortBlocks(all) * DIGITS], { dtype: "i32" });
  }
  const vec4s = table.shape[0] * Math.ceil(table.shape[1] / 4);
  if (sumParts(all).length > 1) own("angles", [8 * vec4s], {});
}

/** How a tensor of rows is reached, and what the uniform has to say of it. */
export function layTableRows(device: GPUDevice, name: "gradient" | "o", spec: ResolvedSpec) {
  const operand = { spec: withHeads(spec), base: bindingBase(device, spec) };
  const access = accessOf(device, operand);
  const values = addresses(name, "n", operand, isAligned(access), { layout: "bhmd" });
  return { access, values: values as UniformValues };
}

/** The stages that write the gradient of the table. */
export function tableStages(device: GPUDevice, problem: TableGradient): Stage[] {
  const { gradient, gradientName, table, tableName, positions, isOrdered } = problem;
  const [, rows, width] = gradient.shape;
  const all = rowsOf(gradient);
  const from = layTableRows(device, "gradient", gradient);
  const into = layTableRows(device, "o", table);
  const blocks = sortBlocks(all);
  const shared = {
    rows,
    all_rows: all,
    width,
    table_rows: table.shape[0],
    table_scale: problem.factor ?? 1,
    left_out: problem.leftOut ?? NONE,
    blocks,
    digit_shift: 0,
    part_begin: 0,
    part_end: 0,
    ...from.values,
    ...into.values,
    ...problem.values,
  };
  const stage = (
    spec: TableGradientSpecialisation,
    workgroups: number,
    more: UniformValues,
    names: Readonly<Record<string, string>>,
  ): Stage => ({
    source: tableGradientKernel(spec),
    names: {
      gradient: gradientName,
      counts: "workspace",
      sums: "angles",
      ...(positions && { positions }),
      ...names,
    },
    params: { struct: TABLE_GRADIENT_PARAMS, values: { ...shared, ...more } },
    workgroups,
  });
  const inMemory = positions !== undefined;
  const list: Stage[] = [];
  let sorted = "tables";
  if (!isOrdered) {
    for (const [pass, shift] of digitShifts(table.shape[0]).entries()) {
      const next = sorted === "tables" ? "blocks" : "tables";
      const names = { order: sorted, next_order: next };
      const values = { digit_shift: shift };
      const look = { positions: inMemory, ordered: pass > 0 };
      list.push(
        stage({ root: "table_count_backward", ...look }, blocks, values, names),
        stage({ root: "table_offsets_backward" }, Math.min(1, blocks), values, names),
        stage({ root: "table_scatter_backward", ...look }, blocks, values, names),
      );
      sorted = next;
    }
  }
  const parts = sumParts(all);
  const spec = {
    root: "table_backward",
    gradient: from.access,
    o: into.access,
    positions: inMemory,
    ordered: true,
    carried: parts.length > 1,
  } as const;
  const workgroups = vec4Workgroups(table.shape[0], width);
  const names = { o: tableName, order: sorted };
  return [...list, ...parts.map((part) => stage(spec, workgroups, part, names))];
}
