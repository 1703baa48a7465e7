// Tensors of any number of axes as the kernels of rows see them: broadcast to one shape, with axes
// joined if no tensor's memory tells them apart.

import { check } from "../errors.ts";
import { isSoftware } from "../gpu/device.ts";
import { isAligned } from "../kernels/access.ts";
import {
  ROW_PARAMS,
  ROW_TENSORS,
  type RowAccesses,
  type RowTensor,
  rowLanes,
} from "../kernels/rows.ts";
import type { UniformValues } from "../kernels/uniform.ts";
import { accessOf, addresses } from "../plan/access.ts";
import { bindingBase, type ResolvedSpec } from "../plan/specs.ts";

/** [B, H, N] of the rows [B, H, N, W]: a kernel knows three axes beside that of its row. */
const OUTER = 3;

/**
 * The spec broadcast to `shape`, with stride 0 along axes that it lacks or that have size 1 in it.
 * Throws FoveaError("argument") if it doesn't broadcast.
 */
export function broadcastTo(
  label: string,
  name: string,
  spec: ResolvedSpec,
  shape: readonly number[],
): ResolvedSpec {
  const missing = shape.length - spec.shape.length;
  check(
    missing >= 0 && spec.shape.every((size, axis) => size === shape[axis + missing] || size === 1),
    "argument",
    () =>
      `${label}: ${name} must broadcast to [${shape.join(", ")}], got [${spec.shape.join(", ")}].`,
  );
  const strides = shape.map((_, axis) =>
    axis < missing || spec.shape[axis - missing] === 1 ? 0 : spec.strides[axis - missing],
  );
  return { ...spec, shape: [...shape], strides };
}

type Specs<Name extends string = RowTensor> = Readonly<Partial<Record<Name, ResolvedSpec>>> & {
  readonly o: ResolvedSpec;
};

/** Tensors of one shape as [B, H, N, W]. */
export interface FoldedRows<Name extends string = RowTensor> {
  readonly specs: Specs<Name>;
  readonly rows: number;
  readonly width: number;
}

/**
 * Joins the last `rowAxes` axes to one, and the others to three at most, in the order in which the
 * output has them in memory. If `rowAxes` is 0, all axes are joined to four at most, and the one
 * along which the output is densest is the row.
 *
 * Throws FoveaError("argument") if strides leave too many axes.
 *
 * @param names What callers call the tensors, if that differs from NAMES.
 */
export function foldRows<Name extends string = RowTensor>(
  label: string,
  specs: Specs<Name>,
  rowAxes: number,
  names: Readonly<Partial<Record<string, string>>> = {},
): FoldedRows<Name> {
  const tensors = Object.entries(specs) as [Name & RowTensor, ResolvedSpec][];
  // A tensor without elements has no axes that could be kept apart.
  const shape = specs.o.shape.includes(0) ? [0] : specs.o.shape;
  const axes = shape.map((_, axis) => axis);
  const listed = tensors.map(([name]) => names[name] ?? NAMES[name]).join(", ");
  const inner = joined(tensors, shape, axes.slice(shape.length - rowAxes), false);
  const outer = joined(tensors, shape, axes.slice(0, shape.length - rowAxes), true);
  check(
    inner.length <= 1,
    "argument",
    () =>
      `${label}: the strides of ${listed} leave ${inner.length} axes of a row of [${shape.slice(shape.length - rowAxes).join(", ")}], and a kernel takes one; copy them with copyTensor() first.`,
  );
  if (rowAxes > 0) outer.push(...(inner.length ? inner : [ONE(tensors)]));
  check(
    outer.length <= OUTER + 1,
    "argument",
    () =>
      `${label}: the strides of ${listed} leave ${outer.length} axes of [${shape.join(", ")}], and a kernel takes ${OUTER + 1}; copy a part of the axes at a time, or make the tensors dense.`,
  );
  while (outer.length <= OUTER) outer.unshift(ONE(tensors));
  const sizes = outer.map(({ size }) => size);
  return {
    specs: Object.fromEntries(
      tensors.map(([name, spec]) => {
        return [
          name,
          { ...spec, shape: sizes, strides: outer.map(({ strides }) => strides[name] as number) },
        ];
      }),
    ) as unknown as Specs<Name>,
    rows: sizes[0] * sizes[1] * sizes[2],
    width: sizes[OUTER],
  };
}

/** What callers call the tensors. */
const NAMES: Readonly<Record<RowTensor, string>> = {
  source: "x",
  residual: "residual",
  shift: "residualBias",
  weight: "weight",
  bias: "bias",
  o: "output",
  total: "sum",
  statistics: "statistics",
};

/** Axes that the kernel sees as one. */
interface JoinedAxis {
  readonly size: number;
  readonly strides: Readonly<Record<string, number>>;
}

const ONE = (tensors: readonly [string, ResolvedSpec][]): JoinedAxis => ({
  size: 1,
  strides: Object.fromEntries(tensors.map(([name]) => [name, 0])),
});

/**
 * The axes that are longer than 1, joined with the next one if that continues it in every tensor.
 */
function joined(
  tensors: readonly [string, ResolvedSpec][],
  shape: readonly number[],
  axes: readonly number[],
  sorted: boolean,
): JoinedAxis[] {
  const stridesOf = (axis: number) =>
    Object.fromEntries(tensors.map(([name, { strides }]) => [name, strides[axis]]));
  const longer = axes.filter((axis) => shape[axis] !== 1);
  const list = longer.map((axis): JoinedAxis => ({ size: shape[axis], strides: stridesOf(axis) }));
  if (sorted) list.sort((a, b) => (b.strides.o as number) - (a.strides.o as number));
  const result: JoinedAxis[] = [];
  for (const axis of list) {
    const last = result.at(-1);
    const { size, strides } = axis;
    if (
      last &&
      tensors.every(([name]) => last.strides[name] === (strides[name] as number) * size)
    ) {
      result[result.length - 1] = { size: last.size * size, strides };
    } else result.push(axis);
  }
  return result;
}

/** Tensors that a kernel reads or writes; the rows are those of the output, or else of the source. */
export interface LaidRows {
  readonly specs: Readonly<Partial<Record<RowTensor, ResolvedSpec>>>;
  readonly rows: number;
  readonly width: number;
}

/** How the kernel reads or writes each tensor, and the uniform that says where each lies. */
export function layRows(
  device: GPUDevice,
  { specs, rows, width }: LaidRows,
  more: UniformValues = {},
) {
  const operands = Object.entries(specs).map(([name, spec]) => {
    const operand = { spec, base: bindingBase(device, spec) };
    return [name as RowTensor, operand, accessOf(device, operand)] as const;
  });
  const [, heads, perHead] = (specs.o ?? (specs.source as ResolvedSpec)).shape;
  const params = Object.assign(
    { rows_per_head: perHead, n_heads: heads, all_rows: rows, width, ...more },
    ...ROW_TENSORS.map((name) => addresses(name, "n", undefined, false, { layout: "bhmd" })), // zeros for the tensors that are absent
    ...operands.map(([name, operand, access]) =>
      addresses(name, "n", operand, isAligned(access), { layout: "bhmd" }),
    ),
  ) as UniformValues;
  return {
    accesses: Object.fromEntries(
      operands.map(([name, , access]) => [name, access]),
    ) as unknown as RowAccesses,
    params: { struct: ROW_PARAMS, values: params },
  };
}

/**
 * A tensor that has one number for each row, broadcast along rows of `shape`: what is folded
 * together with them.
 */
export function alongRows(
  label: string,
  name: string,
  spec: ResolvedSpec,
  shape: readonly number[],
): ResolvedSpec {
  const column = { ...spec, shape: [...spec.shape, 1], strides: [...spec.strides, 0] };
  return broadcastTo(label, name, column, shape);
}

/** The params of a tensor that has one number for each row, after it was folded with the rows. */
export function rowNumbers(
  device: GPUDevice,
  name: "index" | "result",
  spec: ResolvedSpec,
): UniformValues {
  const [b, h, n] = spec.strides;
  return {
    [`${name}_base`]: bindingBase(device, spec),
    [`${name}_stride_b`]: b,
    [`${name}_stride_h`]: h,
    [`${name}_stride_n`]: n,
  };
}

/** The same for a dense tensor of the plan's own. */
export const denseRowNumbers = (
  name: "index" | "result",
  [, heads, perHead]: readonly number[],
): UniformValues => ({
  [`${name}_base`]: 0,
  [`${name}_stride_b`]: heads * perHead,
  [`${name}_stride_h`]: perHead,
  [`${name}_stride_n`]: 1,
});

/** Gives [B, M, D] or [P, D] four axes. */
export function withHeads({ shape, strides, ...rest }: ResolvedSpec): ResolvedSpec {
  const [b, m, d] = [0, 1, 2].map((axis) => axis - 3 + shape.length);
  const size = (axis: number) => shape[axis] ?? 1;
  const step = (axis: number) => strides[axis] ?? 0;
  return {
    ...rest,
    shape: [size(b), 1, size(m), size(d)],
    strides: [step(b), 0, step(m), step(d)],
  };
}

/** How many lanes share a row, and whether rows lie side by side in memory. */
export function lanesOf(
  device: GPUDevice,
  { specs, rows, width }: Pick<FoldedRows, "rows" | "width" | "specs">,
) {
  const { strides } = specs.o;
  const rowsAdjacent = width > 1 && strides[OUTER] !== 1 && strides[OUTER - 1] === 1;
  const lanes = rowLanes(width, rowsAdjacent, isSoftware(device) ? rows : 0);
  return { lanes, rowsAdjacent };
}

/**
 * An axis counted from the first; negative ones count from the end. Throws FoveaError("argument")
 * if there is no such axis.
 */
export function axisFromStart(label: string, axis: number, shape: readonly number[]): number {
  check(
    shape.length > 0,
    "argument",
    () =>
      `${label}: x must have one axis or more, got a scalar, []; view({ shape: [1] }) gives it one.`,
  );
  check(
    Number.isInteger(axis) && -shape.length <= axis && axis < shape.length,
    "argument",
    () =>
      `${label}: axis must be a whole number from ${-shape.length} up to ${shape.length - 1} for [${shape.join(", ")}], got ${axis}.`,
  );
  return axis < 0 ? axis + shape.length : axis;
}
