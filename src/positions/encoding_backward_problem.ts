// The problem of a position encoding's gradients: its tensors, checked before the GPU sees any of
// them.

import { check } from "../errors.ts";
import type { OptionNames, Taken } from "../given.ts";
import { resolveSpec, Tensor } from "../gpu/tensor.ts";
import { ANGLE_POSITIONS } from "../kernels/rotary_angles.ts";
import { gradientsOf } from "../plan/gradients.ts";
import type { Caller } from "../plan/operation.ts";
import { checkedSpec, expectApart, expectShape, FLOATS, type ResolvedSpec } from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import {
  POSITION_OPTIONS,
  type PositionOptions,
  type ResolvedPositions,
  resolvePositions,
} from "./positions.ts";

/** The gradients of a position encoding. */
export type PositionEncodingGradient = "dX" | "dTable";

/**
 * The gradients that a plan is made for. Shapes and strides are fixed by the plan; memory is given
 * at encode.
 */
export interface PositionEncodingBackwardProblem extends PositionOptions {
  /** [B, M, D] f32, f16 or bf16: the gradient of the output. */
  readonly dOutput: TensorSpec;
  /**
   * [P, D], the learned table. Only its shape and dtype are read, for dTable. Default: the encoding
   * is sinusoidal, and has no gradient.
   */
  readonly table?: TensorSpec;
  /** Factor of x in the forward problem. Default 1. */
  readonly scale?: number;
  /**
   * Which gradients are computed, `"dX"`, `"dTable"`. Default: dX, and dTable if there is a table.
   */
  readonly gradients?: readonly PositionEncodingGradient[];
  /** [B, M, D] f32, f16 or bf16. Default: dense, the dtype of dOutput. */
  readonly dX?: TensorSpec;
  /** [P, D] f32, f16 or bf16. Default: dense, the dtype of the table. */
  readonly dTable?: TensorSpec;
  /**
   * Name of the plan's GPU objects in errors and captures. Default `"positionEncodingBackward"`.
   */
  readonly label?: string;
}

/** The names of all members of a problem. */
export const POSITION_ENCODING_BACKWARD_PROBLEM: OptionNames<PositionEncodingBackwardProblem> = {
  ...POSITION_OPTIONS,
  dOutput: "any",
  table: "any",
  scale: "number",
  gradients: "any",
  dX: "any",
  dTable: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface PositionEncodingBackwardBindings {
  readonly dOutput?: Tensor;
  /** Bound only if the plan was made for it, as are the members that follow. */
  readonly dX?: Tensor;
  readonly dTable?: Tensor;
  readonly positionIds?: Tensor;
  readonly positionOffset?: Tensor;
}

/** The checked gradients of a position encoding. */
export interface ResolvedEncodingBackward {
  readonly dOutput: ResolvedSpec;
  readonly dX: ResolvedSpec | undefined;
  readonly dTable: ResolvedSpec | undefined;
  readonly scale: number;
  readonly positions: ResolvedPositions;
  /** The rows by position, if the host knows them; otherwise the GPU sorts them. */
  readonly order: Int32Array<ArrayBuffer> | undefined;
}

/** Checks the gradients of a position encoding. Throws FoveaError that names what is wrong. */
export function resolveEncodingBackward(
  problem: Taken<PositionEncodingBackwardProblem>,
  { label }: Caller,
): ResolvedEncodingBackward {
  const { scale = 1 } = problem;
  check(
    Number.isFinite(Math.fround(scale)),
    "argument",
    () => `${label}: scale must be a finite number of f32, got ${scale}.`,
  );
  const dOutput = checkedSpec(label, "dOutput", problem.dOutput, FLOATS);
  const { shape } = dOutput;
  check(
    shape.length === 3,
    "argument",
    () => `${label}: dOutput must be [B, M, D], got [${shape}].`,
  );
  const [batch, rows, width] = shape;
  const table =
    problem.table === undefined ? undefined : checkedSpec(label, "table", problem.table, FLOATS);
  if (table) expectShape(label, "table", table, [table.shape[0], width], "with one row a position");
  const asked = gradientsOf<PositionEncodingGradient>(label, problem.gradients, {
    dX: dOutput,
    dTable: table,
  });
  const written = (name: PositionEncodingGradient, like: ResolvedSpec | undefined, of: string) => {
    if (!like || !asked.has(name)) return undefined;
    const spec =
      problem[name] === undefined
        ? resolveSpec(name, { shape: like.shape, dtype: like.dtype })
        : checkedSpec(label, name, problem[name], FLOATS);
    expectShape(label, name, spec, like.shape, `like ${of}`);
    expectApart(label, name, spec);
    return spec;
  };
  const dX = written("dX", dOutput, "dOutput");
  const dTable = written("dTable", table, "the table");
  const range = table
    ? ([0, table.shape[0], "rows of the table"] as const)
    : ([-ANGLE_POSITIONS, ANGLE_POSITIONS, "those that tables of angles cover"] as const);
  const positions = resolvePositions(label, problem, { batch, rows, streams: 1, range });
  const order = dTable && orderOf(positions, { batch, rows, positions: dTable.shape[0] });
  return { dOutput, dX, dTable, scale, positions, order };
}

/** The rows sorted by position, rows of one position in their own order. */
function orderOf(
  { offset, stored }: ResolvedPositions,
  sizes: { readonly batch: number; readonly rows: number; readonly positions: number },
): Int32Array<ArrayBuffer> | undefined {
  const { batch, rows } = sizes;
  const values = stored?.values;
  if (values instanceof Tensor) return undefined;
  const [, ofEntry, ofRow] = stored?.strides ?? [0, 0, 0];
  const positionAt = (index: number) => {
    const entry = Math.floor(index / rows);
    const row = index % rows;
    const known = values?.[entry * ofEntry + row * ofRow] ?? 0;
    return offset + known + (stored && stored.step === 0 ? 0 : row);
  };
  const starts = new Int32Array(sizes.positions + 1);
  for (let index = 0; index < batch * rows; index++) starts[positionAt(index) + 1]++;
  for (let p = 0; p < sizes.positions; p++) starts[p + 1] += starts[p];
  const order = new Int32Array(batch * rows);
  for (let index = 0; index < batch * rows; index++) order[starts[positionAt(index)]++] = index;
  return order;
}
