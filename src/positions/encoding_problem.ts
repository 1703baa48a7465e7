// The problem of a position encoding: its tensors, checked before the GPU sees any of them.

import { check } from "../errors.ts";
import type { OptionNames, Taken } from "../given.ts";
import { resolveSpec, type Tensor } from "../gpu/tensor.ts";
import { ANGLE_POSITIONS } from "../kernels/rotary_angles.ts";
import type { Caller } from "../plan/operation.ts";
import { checkedSpec, expectApart, expectShape, FLOATS, type ResolvedSpec } from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import {
  POSITION_OPTIONS,
  type PositionOptions,
  type ResolvedPositions,
  resolvePositions,
} from "./positions.ts";
import { resolveSinusoidal, SINUSOIDAL_OPTIONS, type SinusoidalOptions } from "./sinusoidal.ts";

/**
 * The position encoding that a plan is made for. Shapes and strides are fixed by the plan; memory
 * is given at encode.
 */
export interface PositionEncodingProblem extends SinusoidalOptions, PositionOptions {
  /**
   * [B, M, D] f32, f16 or bf16, to which the encodings are added. Default: none; the output is then
   * the encodings alone.
   */
  readonly x?: TensorSpec;
  /** [B, M, D] f32, f16 or bf16. Default: dense, like x. Needed without x. */
  readonly output?: TensorSpec;
  /** The result takes the place of x, and there is no output. Default false. */
  readonly inPlace?: boolean;
  /**
   * [P, D] f32, f16 or bf16: learned encodings of the positions 0..P - 1. Default: the encoding is
   * sinusoidal.
   */
  readonly table?: TensorSpec;
  /** Factor of x. Default 1; the Transformer has sqrt(D). */
  readonly scale?: number;
  /** Name of the plan's GPU objects in errors and captures. Default `"positionEncoding"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
export const POSITION_ENCODING_PROBLEM: OptionNames<PositionEncodingProblem> = {
  ...SINUSOIDAL_OPTIONS,
  ...POSITION_OPTIONS,
  x: "any",
  output: "any",
  inPlace: "boolean",
  table: "any",
  scale: "number",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface PositionEncodingBindings {
  readonly x?: Tensor;
  /** Needed unless the plan works in place. */
  readonly output?: Tensor;
  /** Bound only if the plan was made with a tensor for it, as are the members that follow. */
  readonly table?: Tensor;
  readonly positionIds?: Tensor;
  readonly positionOffset?: Tensor;
}

/** A checked position encoding. */
export interface ResolvedEncoding {
  readonly x: ResolvedSpec | undefined;
  /** The spec of the output; it is that of x if the result takes its place. */
  readonly output: ResolvedSpec;
  readonly inPlace: boolean;
  /** Either `table` or `sinusoidal` is given. */
  readonly table: ResolvedSpec | undefined;
  readonly sinusoidal: ReturnType<typeof resolveSinusoidal> | undefined;
  readonly scale: number;
  readonly positions: ResolvedPositions;
}

/**
 * Checks a position encoding and fills in its defaults. Throws FoveaError that names what is wrong.
 */
export function resolveEncoding(
  problem: Taken<PositionEncodingProblem>,
  { label }: Caller,
): ResolvedEncoding {
  const { inPlace = false, scale = 1 } = problem;
  check(
    problem.x !== undefined || problem.output !== undefined,
    "argument",
    () => `${label}: there is neither x to add encodings to nor an output to write them to.`,
  );
  check(
    !inPlace || (problem.x !== undefined && problem.output === undefined),
    "argument",
    () => `${label}: in place there is an x and no output; leave out output or inPlace.`,
  );
  check(
    problem.output === undefined || problem.output !== problem.x,
    "overlap",
    () => `${label}: output is x itself; { inPlace: true } writes the result there.`,
  );
  check(
    Number.isFinite(Math.fround(scale)),
    "argument",
    () => `${label}: scale must be a finite number of f32, got ${scale}.`,
  );
  const rows = (name: "x" | "output") => {
    const spec = checkedSpec(label, name, problem[name] as TensorSpec, FLOATS);
    const { shape } = spec;
    check(
      shape.length === 3,
      "argument",
      () => `${label}: ${name} must be [B, M, D], got [${shape}].`,
    );
    return spec;
  };
  const x = problem.x === undefined ? undefined : rows("x");
  const fresh = () => resolveSpec("output", { shape: x?.shape ?? [], dtype: x?.dtype ?? "f32" });
  const output = problem.output !== undefined ? rows("output") : inPlace && x ? x : fresh();
  if (x) expectShape(label, "output", output, x.shape, "like x");
  expectApart(label, inPlace ? "x" : "output", output);
  const [batch, count, width] = output.shape;
  const table = problem.table === undefined ? undefined : learned(label, problem, width);
  const range = table
    ? ([0, table.shape[0], "rows of the table"] as const)
    : ([-ANGLE_POSITIONS, ANGLE_POSITIONS, "those that tables of angles cover"] as const);
  return {
    x,
    output,
    inPlace,
    table,
    scale,
    sinusoidal: table ? undefined : resolveSinusoidal(label, width, problem),
    positions: resolvePositions(label, problem, { batch, rows: count, streams: 1, range }),
  };
}

function learned(
  label: string,
  problem: Taken<PositionEncodingProblem>,
  width: number,
): ResolvedSpec {
  for (const name of ["maxWavelength", "frequencies", "order"] as const) {
    check(
      problem[name] === undefined,
      "argument",
      () =>
        `${label}: ${name} is for sinusoidal encodings, and a table of learned ones was given; leave one out.`,
    );
  }
  const table = checkedSpec(label, "table", problem.table as TensorSpec, FLOATS);
  check(
    table.shape.length === 2 && table.shape[1] === width,
    "argument",
    () => `${label}: table must be [P, ${width}], one row a position, got [${table.shape}].`,
  );
  return table;
}
