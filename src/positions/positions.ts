// The positions of a tensor's rows, for position encodings: numbers, or tensors that a caller keeps
// on the GPU.

import { check } from "../errors.ts";
import type { Numbers, OptionNames, Taken } from "../given.ts";
import { Tensor } from "../gpu/tensor.ts";
import {
  bindingBase,
  expectShape,
  type ListOrTensor,
  type PerBatch,
  type ResolvedSpec,
} from "../plan/specs.ts";
import type { PlanTensors } from "../plan/tensors.ts";

/** Positions of the rows. Default: row i of every batch entry stands at position i. */
export interface PositionOptions {
  /**
   * Position of the first row, for all batch entries or one each [B]; the others follow it. Default
   * 0.
   */
  readonly positionOffset?: number | PerBatch;
  /**
   * The position of each row: an i32 (or u32) tensor [B, M], or [M] for all entries alike, or
   * numbers in that order. With sections there are positions of time, height and width: [3, B, M],
   * or a tensor [3, 1, M].
   */
  readonly positionIds?: Numbers | Tensor;
}

/** The names of the options. */
export const POSITION_OPTIONS: OptionNames<PositionOptions> = {
  positionOffset: "any",
  positionIds: "any",
};

/** The rows that need positions. */
export interface PositionSizes {
  readonly batch: number;
  readonly rows: number;
  /** Positions of a row: 1, or 3 with sections. */
  readonly streams: 1 | 3;
  /** The allowed positions, from `begin` up to, and without, `end`; `what` says why in messages. */
  readonly range: readonly [begin: number, end: number, what: string];
}

/** Checked positions. */
export interface ResolvedPositions {
  /** The position of the first row, if all entries are alike. */
  readonly offset: number;
  /**
   * Positions in memory, [streams, B, M], with steps of 0 along shared axes. If `step` is 1,
   * positions rise by one from row to row.
   */
  readonly stored?: {
    /** The option that gave them. */
    readonly name: "positionIds" | "positionOffset";
    readonly values: readonly number[] | Tensor;
    readonly strides: readonly [stream: number, batch: number, row: number];
    readonly step: 0 | 1;
  };
}

/** Checks positions. Throws FoveaError("argument") that names what is wrong. */
export function resolvePositions(
  label: string,
  options: Taken<PositionOptions>,
  sizes: PositionSizes,
): ResolvedPositions {
  const { positionIds, positionOffset } = options;
  check(
    positionIds === undefined || positionOffset === undefined,
    "argument",
    () => `${label}: give positionIds or positionOffset, not both.`,
  );
  if (positionIds !== undefined) return ids(label, positionIds, sizes);
  return offsets(label, positionOffset ?? 0, sizes);
}

function ids(
  label: string,
  given: readonly number[] | Tensor,
  sizes: PositionSizes,
): ResolvedPositions {
  const { batch, rows, streams } = sizes;
  const name = "positionIds";
  const plain = [
    [batch, rows],
    [1, rows],
  ];
  const shapes = streams === 3 ? plain.map((shape) => [3, ...shape]) : [...plain, [rows]];
  if (given instanceof Tensor) {
    const { shape } = given;
    checkIntegers(label, name, given);
    check(
      shapes.some(
        (one) => one.length === shape.length && one.every((size, axis) => size === shape[axis]),
      ),
      "argument",
      () =>
        `${label}: positionIds must be [${shapes.map((one) => one.join(", ")).join("], [")}], got [${shape}].`,
    );
    const steps = shape.map((size, axis) => (size > 1 ? given.strides[axis] : 0));
    const [stream, entry, row] = [...new Array<number>(3 - steps.length).fill(0), ...steps];
    return { offset: 0, stored: { name, values: given, strides: [stream, entry, row], step: 0 } };
  }
  const counts = streams === 3 ? [3 * batch * rows] : [batch * rows, rows];
  check(
    Array.isArray(given) && counts.includes(given.length),
    "argument",
    () =>
      `${label}: positionIds must be a tensor, or ${counts[0]} numbers [${shapes[0].join(", ")}], got ${Array.isArray(given) ? given.length : given}.`,
  );
  checkRange(label, name, given, 0, sizes);
  const perEntry = given.length > streams * rows || batch === 1 ? rows : 0;
  const strides = [batch * rows, perEntry, 1] as const;
  return { offset: 0, stored: { name, values: given, strides, step: 0 } };
}

function offsets(
  label: string,
  given: number | ListOrTensor,
  sizes: PositionSizes,
): ResolvedPositions {
  const name = "positionOffset";
  if (given instanceof Tensor) {
    checkIntegers(label, name, given);
    expectShape(label, name, given, [sizes.batch], "(one position a batch entry)");
    return {
      offset: 0,
      stored: { name, values: given, strides: [0, given.strides[0], 0], step: 1 },
    };
  }
  const all = typeof given === "number" ? [given] : given;
  check(
    typeof given === "number" || (Array.isArray(given) && given.length === sizes.batch),
    "argument",
    () =>
      `${label}: positionOffset must be a whole number, or ${sizes.batch} of them (one a batch entry), got ${given}.`,
  );
  checkRange(label, name, all, Math.max(0, sizes.rows - 1), sizes);
  if (all.every((offset) => offset === all[0])) return { offset: all[0] ?? 0 };
  return { offset: 0, stored: { name, values: all, strides: [0, 1, 0], step: 1 } };
}

function checkIntegers(label: string, name: string, { dtype }: Tensor): void {
  check(
    dtype === "i32" || dtype === "u32",
    "argument",
    () => `${label}: ${name} must be i32, whole numbers on the GPU, got ${dtype}.`,
  );
}

/** Throws FoveaError unless all positions, and the `more` positions after each, are allowed. */
function checkRange(
  label: string,
  name: string,
  values: readonly number[],
  more: number,
  sizes: PositionSizes,
): void {
  const { batch, rows } = sizes;
  const [begin, end, what] = sizes.range;
  if (batch * rows === 0) return; // there are no rows
  const wrong = values.findIndex(
    (value) => !Number.isInteger(value) || value < begin || value + more >= end,
  );
  check(
    wrong < 0,
    "argument",
    () =>
      `${label}: ${name}[${wrong}] is ${values[wrong]}${more ? `, and ${more} rows follow` : ""}; positions are whole numbers from ${begin} to ${end - 1}, ${what}.`,
  );
}

/** Adds the positions that are in memory to the tensors of a plan. */
export function addPositions(
  { stored }: ResolvedPositions,
  { add, own }: Pick<PlanTensors, "add" | "own">,
): void {
  if (!stored) return;
  const { name, values } = stored;
  if (values instanceof Tensor) add(name, values, values);
  else own("positions", [values.length], { dtype: "i32", data: values });
}

/** The operand that holds positions in memory, if there are any. */
export const positionsOperand = ({ stored }: ResolvedPositions): string | undefined =>
  stored && (stored.values instanceof Tensor ? stored.name : "positions");

/** The params of slots/positions; `spec` is that of the tensor which holds the positions. */
export function positionParams(
  device: GPUDevice,
  {
    offset,
    stored,
  }: {
    offset: number;
    stored?: Pick<NonNullable<ResolvedPositions["stored"]>, "strides" | "step">;
  },
  spec: ResolvedSpec | undefined,
): Record<
  "position_offset" | `positions_${"base" | "stride_s" | "stride_b" | "stride_m" | "step"}`,
  number
> {
  const [positions_stride_s, positions_stride_b, positions_stride_m] = stored?.strides ?? [0, 0, 0];
  return {
    position_offset: offset,
    positions_base: spec ? bindingBase(device, spec) : 0,
    positions_step: stored?.step ?? 0,
    positions_stride_s,
    positions_stride_b,
    positions_stride_m,
  };
}
