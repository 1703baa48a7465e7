// The problem of a rotary embedding: its tensors, checked before the GPU sees any of them.

import { check } from "../errors.ts";
import type { OptionNames, Taken } from "../given.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { ANGLE_POSITIONS, type RotaryChoice } from "../kernels/rotary_angles.ts";
import type { Caller } from "../plan/operation.ts";
import {
  checkedSpec,
  checkLayout,
  dense,
  expectApart,
  expectShape,
  FLOATS,
  type ResolvedSpec,
  reorder,
  toBhmd,
} from "../plan/specs.ts";
import type { FloatDtype, Layout, TensorSpec } from "../types.ts";
import {
  POSITION_OPTIONS,
  type PositionOptions,
  type ResolvedPositions,
  resolvePositions,
} from "./positions.ts";
import {
  type ResolvedRotary,
  ROTARY_OPTIONS,
  type RotaryOptions,
  resolveRotary,
} from "./rotary_options.ts";

/**
 * The rotary embedding that a plan is made for. Shapes and strides are fixed by the plan; memory is
 * given at encode.
 */
export interface RotaryProblem extends RotaryOptions, PositionOptions {
  /** [B, H, M, D] f32, f16 or bf16: queries, or keys. A tensor, or what it will look like. */
  readonly x: TensorSpec;
  /** [B, H, M, D] f32, f16 or bf16. Default: dense, the dtype of x. */
  readonly output?: TensorSpec;
  /** The result takes the place of x, and there is no output. Default false. */
  readonly inPlace?: boolean;
  /**
   * cos and sin that you computed, in place of the frequencies: [P, R / 2] for the positions 0..P -
   * 1, or [B, M, R / 2] for each row; rows dense, f32, f16 or bf16. Tokens whose id, on the GPU,
   * has no row stay as they are.
   */
  readonly cos?: TensorSpec;
  /** sin that you computed, like `cos`. Needed with it. */
  readonly sin?: TensorSpec;
  /**
   * Whether pairs turn the other way. That is the inverse rotation if the attention factor is 1,
   * and always the transposed one, which gives the gradient of x from that of the output. Default
   * false.
   */
  readonly conjugate?: boolean;
  /** Axis order of x and output. Default `"bhmd"`. */
  readonly layout?: Layout;
  /** Name of the plan's GPU objects in errors and captures. Default `"rotary"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
export const ROTARY_PROBLEM: OptionNames<RotaryProblem> = {
  ...ROTARY_OPTIONS,
  ...POSITION_OPTIONS,
  x: "any",
  output: "any",
  inPlace: "boolean",
  cos: "any",
  sin: "any",
  conjugate: "boolean",
  layout: "string",
  label: "string",
};

/**
 * Memory for one run of a rotary plan: tensors that look as the plan was told. The tensors that it
 * was made with are the default.
 */
export interface RotaryBindings {
  readonly x?: Tensor;
  /** Needed unless the plan works in place. */
  readonly output?: Tensor;
  /** Bound only if the plan was made with a tensor for it, as are the members that follow. */
  readonly positionIds?: Tensor;
  readonly positionOffset?: Tensor;
  readonly cos?: Tensor;
  readonly sin?: Tensor;
}

/** A checked rotary embedding. */
export interface ResolvedRotaryProblem {
  readonly layout: Layout;
  /** x, with its axes in BHMD order. */
  readonly x: ResolvedSpec;
  /** The spec of the output in BHMD order; it is that of x if the result takes its place. */
  readonly output: ResolvedSpec;
  readonly inPlace: boolean;
  readonly choice: RotaryChoice;
  readonly rotary: ResolvedRotary;
  readonly positions: ResolvedPositions;
  /** A caller's cos and sin with two axes, and how many rows they have. */
  readonly caches?: {
    readonly cos: ResolvedSpec;
    readonly sin: ResolvedSpec;
    readonly rows: number;
  };
  readonly conjugate: boolean;
}

/** What callers call the rows that are turned, and the result. */
const NAMES = { x: "x", output: "output" };

/**
 * Checks a rotary embedding and fills in its defaults. Throws FoveaError that names what is wrong;
 * `names` is what the caller calls x and the output.
 */
export function resolveRotaryProblem(
  problem: Taken<RotaryProblem>,
  { label }: Caller,
  names = NAMES,
): ResolvedRotaryProblem {
  const { layout = "bhmd", inPlace = false, conjugate = false } = problem;
  checkLayout(label, layout);
  const x = toBhmd(label, names.x, problem.x, layout, FLOATS);
  const [batch, , rows, headDim] = x.shape;
  check(
    !inPlace || problem.output === undefined,
    "argument",
    () => `${label}: in place there is no ${names.output}; leave out ${names.output} or inPlace.`,
  );
  check(
    problem.output === undefined || problem.output !== problem.x,
    "overlap",
    () =>
      `${label}: ${names.output} is ${names.x} itself; { inPlace: true } writes the result there.`,
  );
  const output = inPlace
    ? x
    : problem.output
      ? toBhmd(label, names.output, problem.output, layout, FLOATS)
      : dense(x.shape, layout, x.dtype);
  const shapeOf = (spec: ResolvedSpec) => reorder(spec, layout).shape;
  expectShape(label, names.output, reorder(output, layout), shapeOf(x), `like ${names.x}`);
  expectApart(label, inPlace ? names.x : names.output, output);
  const given =
    problem.cos !== undefined || problem.sin !== undefined
      ? givenAngles(label, problem, batch, rows)
      : undefined;
  const rotary = resolveRotary(
    label,
    headDim,
    given ? { ...problem, rotaryDim: given.rotaryDim } : problem,
  );
  const range = given
    ? ([0, given.caches.rows, "rows of cos and sin"] as const)
    : ([-ANGLE_POSITIONS, ANGLE_POSITIONS, "those that tables of angles cover"] as const);
  const where = given?.offsets ? { positionOffset: given.offsets } : problem;
  const streams = rotary.sections ? 3 : 1;
  const { rotaryDim, interleaved, sections, sectionsInterleaved } = rotary;
  const angles = given ? (given.caches.cos.dtype as FloatDtype) : "tables";
  return {
    layout,
    x,
    output,
    inPlace,
    conjugate,
    rotary,
    choice: {
      rotaryDim,
      interleaved,
      inPlace,
      angles,
      ...(sections && { sections, sectionsInterleaved }),
    },
    positions: resolvePositions(label, where, { batch, rows, streams, range }),
    ...(given && { caches: given.caches }),
  };
}

/** Checks a caller's cos and sin, and puts the rows of all batch entries into one axis. */
function givenAngles(label: string, problem: Taken<RotaryProblem>, batch: number, rows: number) {
  for (const name of ["base", "scaling", "frequencies"] as const) {
    check(
      problem[name] === undefined,
      "argument",
      () => `${label}: cos and sin take the place of ${name}; give one or the other.`,
    );
  }
  const { cos, sin } = problem;
  check(
    cos !== undefined && sin !== undefined,
    "argument",
    () => `${label}: cos and sin belong together; only one was given.`,
  );
  const [cosSpec, sinSpec] = [cos, sin].map((spec, index) =>
    checkedSpec(label, index ? "sin" : "cos", spec, FLOATS),
  );
  const { shape, dtype } = cosSpec;
  const perRow = shape.length === 3;
  const half = shape[shape.length - 1];
  check(
    perRow || shape.length === 2,
    "argument",
    () => `${label}: cos must be [positions, R / 2] or [B, M, R / 2], got [${shape}].`,
  );
  expectShape(label, "sin", sinSpec, shape, "like cos");
  check(
    sinSpec.dtype === dtype,
    "argument",
    () => `${label}: cos and sin must have one dtype, got ${dtype} and ${sinSpec.dtype}.`,
  );
  if (perRow)
    expectShape(label, "cos", cosSpec, [batch, rows, half], "for x, or [positions, R / 2]");
  check(
    !perRow || (problem.positionIds === undefined && problem.positionOffset === undefined),
    "argument",
    () =>
      `${label}: cos and sin [B, M, R / 2] are for each row already; leave out positionIds and positionOffset.`,
  );
  check(
    problem.rotaryDim === undefined || problem.rotaryDim === 2 * half,
    "argument",
    () =>
      `${label}: rotaryDim ${problem.rotaryDim} needs rows of ${(problem.rotaryDim ?? 0) / 2} in cos, got [${shape}].`,
  );
  const [flatCos, flatSin] = [cosSpec, sinSpec].map((spec, index) =>
    flattened(label, index ? "sin" : "cos", spec),
  );
  const caches = { cos: flatCos, sin: flatSin, rows: flatCos.shape[0] };
  const offsets = perRow ? Array.from({ length: batch }, (_, entry) => entry * rows) : undefined;
  return { rotaryDim: 2 * half, caches, offsets };
}

/** Gives [B, M, R / 2] as [B * M, R / 2]. */
function flattened(label: string, name: string, spec: ResolvedSpec): ResolvedSpec {
  const { shape, strides } = spec;
  const last = shape.length - 1;
  const joins =
    last === 1 || shape.includes(0) || shape[0] <= 1 || strides[0] === shape[1] * strides[1];
  check(
    joins && (strides[last] === 1 || shape[last] <= 1),
    "argument",
    () =>
      `${label}: ${name} [${shape}] must be dense in its last axis${last > 1 ? ", with batch entries one after the other" : ""}; got strides [${strides}].`,
  );
  if (last === 1) return spec;
  return {
    ...spec,
    shape: [shape[0] * shape[1], shape[2]],
    strides: [shape[1] > 1 || shape[0] <= 1 ? strides[1] : strides[0], 1],
  };
}
