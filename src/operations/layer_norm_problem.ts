// The problem of a normalisation: its tensors, checked before the GPU sees any of them.

import { check } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { resolveSpec, type Tensor } from "../gpu/tensor.ts";
import type { Caller } from "../plan/operation.ts";
import { checkedSpec, expectApart, expectShape, FLOATS, type ResolvedSpec } from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import { axisFromStart, broadcastTo } from "./row_axes.ts";

/**
 * The normalisation that a plan is made for. Shapes and strides are fixed by the plan; memory is
 * given at encode.
 */
export interface LayerNormProblem {
  /** f32, f16 or bf16, of any shape with one axis or more. A tensor, or what it will look like. */
  readonly x: TensorSpec;
  /** Added to x before the norm; broadcasts to its shape. f32, f16 or bf16. Default: none. */
  readonly residual?: TensorSpec;
  /** Added to x before the norm, like `residual`; it is mostly one row. Default: none. */
  readonly residualBias?: TensorSpec;
  /** Factor of each element of a row; broadcasts to the shape of x. f32, f16 or bf16. Default 1. */
  readonly weight?: TensorSpec;
  /**
   * Added to each element of a row at the end; broadcasts to the shape of x. f32, f16 or bf16.
   * Default: none.
   */
  readonly bias?: TensorSpec;
  /**
   * The first of the axes that are normalised together, up to the last one; -1 is the last one.
   * Default -1.
   */
  readonly axis?: number;
  /** Added to the variance or to the mean square. Default 1e-5. */
  readonly epsilon?: number;
  /** Divide by the root mean square, without subtracting the mean. Default false. */
  readonly rms?: boolean;
  /** f32, f16 or bf16, of the shape of x. Default: dense, the dtype of x. */
  readonly output?: TensorSpec;
  /**
   * If given, x + residual + residualBias is written too: a tensor, what it will look like, or true
   * for one like x.
   */
  readonly sum?: TensorSpec | boolean;
  /**
   * If given, mean and inverse deviation of each row are written too: f32 [2, ...], or with `rms`
   * the inverse root mean square alone, [1, ...]. The dots are the shape of x with the normalised
   * axes 1. A tensor, what it will look like, or true for a dense one.
   */
  readonly statistics?: TensorSpec | boolean;
  /** Name of the plan's GPU objects in errors and captures. Default `"layerNorm"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
export const LAYER_NORM_PROBLEM: OptionNames<LayerNormProblem> = {
  x: "any",
  residual: "any",
  residualBias: "any",
  weight: "any",
  bias: "any",
  axis: "number",
  epsilon: "number",
  rms: "boolean",
  output: "any",
  sum: "any",
  statistics: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface LayerNormBindings {
  readonly x?: Tensor;
  readonly output?: Tensor;
  /** Bound only if the plan was made with one, as are the members that follow. */
  readonly residual?: Tensor;
  readonly residualBias?: Tensor;
  readonly weight?: Tensor;
  readonly bias?: Tensor;
  readonly sum?: Tensor;
  readonly statistics?: Tensor;
}

/** A checked normalisation. */
export interface ResolvedLayerNorm {
  readonly specs: Readonly<Record<"x" | "output", ResolvedSpec>> &
    Readonly<
      Partial<
        Record<"residual" | "residualBias" | "weight" | "bias" | "sum" | "statistics", ResolvedSpec>
      >
    >;
  /** The first normalised axis, counted from 0. */
  readonly axis: number;
  readonly epsilon: number;
  readonly rms: boolean;
}

/** Checks a normalisation and fills in its defaults. Throws FoveaError that names what is wrong. */
export function resolveLayerNorm(problem: LayerNormProblem, { label }: Caller): ResolvedLayerNorm {
  const { epsilon = 1e-5, rms = false } = problem;
  const x = checkedSpec(label, "x", problem.x, FLOATS);
  const axis = axisFromStart(label, problem.axis ?? -1, x.shape);
  check(
    Number.isFinite(epsilon) && epsilon >= 0,
    "argument",
    () => `${label}: epsilon must be a finite number from 0 up, got ${epsilon}.`,
  );
  const input = (name: "residual" | "residualBias" | "weight" | "bias") => {
    if (problem[name] === undefined) return {};
    const spec = checkedSpec(label, name, problem[name], FLOATS);
    broadcastTo(label, name, spec, x.shape);
    return { [name]: spec };
  };
  const written = (name: "output" | "sum", given: TensorSpec | boolean | undefined) => {
    const like = { shape: x.shape, dtype: x.dtype };
    const spec =
      typeof given === "object" ? checkedSpec(label, name, given, FLOATS) : resolveSpec(name, like);
    expectShape(label, name, spec, x.shape, "like x");
    expectApart(label, name, spec);
    return { [name]: spec };
  };
  const specs = {
    x,
    ...input("residual"),
    ...input("residualBias"),
    ...input("weight"),
    ...input("bias"),
    ...written("output", problem.output),
    ...(isAsked(problem.sum) && written("sum", problem.sum)),
    ...(isAsked(problem.statistics) && statisticsOf(label, problem.statistics, x.shape, axis, rms)),
  } as ResolvedLayerNorm["specs"];
  return { specs, axis, epsilon, rms };
}

function statisticsOf(
  label: string,
  given: TensorSpec | boolean,
  shape: readonly number[],
  axis: number,
  rms: boolean,
): { statistics: ResolvedSpec } {
  const all = [rms ? 1 : 2, ...shape.map((size, index) => (index < axis ? size : 1))];
  check(
    !shape.slice(axis).includes(0) || all.includes(0),
    "argument",
    () =>
      `${label}: rows of no elements, x [${shape.join(", ")}], have no mean and no deviation; leave out statistics.`,
  );
  const statistics =
    typeof given === "object"
      ? checkedSpec(label, "statistics", given)
      : resolveSpec("statistics", { shape: all });
  expectShape(
    label,
    "statistics",
    statistics,
    all,
    "for mean and inverse deviation of each row of x",
  );
  expectApart(label, "statistics", statistics);
  return { statistics };
}

/** Whether an optional result is wanted: one-line calls say so by true or false. */
const isAsked = <Given>(given: Given): given is Exclude<Given, undefined | false> =>
  given !== undefined && (given as unknown) !== false;
