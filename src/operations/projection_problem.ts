// The problem of a projection: its tensors, checked before the GPU sees any of them, and with four
// axes each, as the kernel takes them.

import { check } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { resolveSpec, type Tensor } from "../gpu/tensor.ts";
import type { WeightIntegers } from "../kernels/matmul.ts";
import type { Caller } from "../plan/operation.ts";
import { checkedSpec, expectApart, expectShape, FLOATS, type ResolvedSpec } from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import {
  checkedIntegers,
  checkedWords,
  type WeightQuantisation,
  wordsOf,
} from "./products/weight_integers.ts";

/**
 * The projection that a plan is made for. Shapes and strides are fixed by the plan; memory is given
 * at encode.
 */
export interface ProjectionProblem {
  /**
   * `[..., K]`: rows of K elements, with up to three axes before them. f32, f16 or bf16; so are all
   * other tensors, each with its own dtype.
   */
  readonly x: TensorSpec;
  /**
   * `[N, K]`: out x in, as in PyTorch. A weight that is stored [K, N], as in Keras and ONNX, is
   * given as `permute(1, 0)`. It may have the axes that x has before its rows, or 1 in place of
   * one, and is then a weight for each of their entries: [B, H, N, K] for x [B, H, M, K].
   */
  readonly weight: TensorSpec;
  /**
   * How integers stand for the elements of the weight, which is then u32 [N, words]: see
   * {@link WeightQuantisation}. Default: they are floats.
   */
  readonly quantised?: WeightQuantisation;
  /** [N]. Default: nothing is added. */
  readonly bias?: TensorSpec;
  /** [..., N], with the axes of x before it. Default: dense, of the dtype of x. */
  readonly output?: TensorSpec;
  /**
   * Floating-point operations after which a dispatch is cut in two, as for attention. Default 2^36.
   */
  readonly maxDispatchFlops?: number;
  /**
   * Take this row of the kernel's tile table instead of the one that fits, or the kernel for few
   * rows with four lanes or sixteen, `"matvec-4"` or `"matvec-16"`. For benchmarks.
   */
  readonly variant?: string;
  /** Name of the plan's GPU objects in errors and captures. Default `"project"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
export const PROJECTION_PROBLEM: OptionNames<ProjectionProblem> = {
  x: "any",
  weight: "any",
  quantised: "any",
  bias: "any",
  output: "any",
  maxDispatchFlops: "number",
  variant: "string",
  label: "string",
};

/**
 * Memory for one run of a projection plan: tensors that look as the plan was told. The tensors that
 * it was made with are the default.
 */
export interface ProjectionBindings {
  readonly x?: Tensor;
  readonly weight?: Tensor;
  readonly bias?: Tensor;
  readonly output?: Tensor;
}

/** A checked projection. */
export interface ResolvedProjection {
  readonly maxDispatchFlops: number;
  readonly variant: string | undefined;
  /** How the weight's elements are integers, if they are. */
  readonly quantised?: WeightIntegers | undefined;
  /** The tensors as the caller gave them. */
  readonly given: {
    readonly x: ResolvedSpec;
    readonly weight: ResolvedSpec;
    readonly bias: ResolvedSpec | undefined;
    readonly output: ResolvedSpec;
  };
  /**
   * The tensors with four axes: x and output [b, h, rows, K or N], weight [b | 1, h | 1, N, K],
   * bias [1, 1, 1, N]. Strides of a weight of integers count words.
   */
  readonly folded: ResolvedProjection["given"];
}

/** Checks a projection and fills in its defaults. Throws FoveaError that names what is wrong. */
export function resolveProjection(
  problem: ProjectionProblem,
  { label }: Caller,
): ResolvedProjection {
  const { variant } = problem;
  const maxDispatchFlops = checkedFlops(label, problem.maxDispatchFlops);
  const { x, weight, words, quantised, each, shape } = checkedFactors(label, problem);
  const bias =
    problem.bias === undefined ? undefined : checkedSpec(label, "bias", problem.bias, FLOATS);
  const columns = shape[shape.length - 1];
  if (bias) expectShape(label, "bias", bias, [columns], `for weight [${weight.shape.join(", ")}]`);
  const output =
    problem.output !== undefined
      ? checkedSpec(label, "output", problem.output, FLOATS)
      : resolveSpec(label, { shape, dtype: x.dtype });
  expectShape(label, "output", output, shape, forFactors(x, weight));
  expectApart(label, "output", output);
  const [foldedX, foldedOutput] = each ? [padded(x), padded(output)] : foldRows(x, output);
  const folded = {
    x: foldedX,
    output: foldedOutput,
    weight: padded(weight),
    bias: bias && padded(bias),
  };
  const given = { x, weight: words, bias, output };
  return { maxDispatchFlops, variant, quantised, given, folded };
}

/** The most operations of a dispatch, checked. */
export function checkedFlops(label: string, maxDispatchFlops = 2 ** 36): number {
  check(
    maxDispatchFlops > 0,
    "argument",
    () => `${label}: maxDispatchFlops must be a positive number, got ${maxDispatchFlops}.`,
  );
  return maxDispatchFlops;
}

/** The end of a sentence about a tensor whose shape follows from x and the weight. */
export const forFactors = (x: ResolvedSpec, weight: ResolvedSpec): string =>
  `for x [${x.shape.join(", ")}] and weight [${weight.shape.join(", ")}]`;

/**
 * Checks x and the weight; gives them, the shape of y, and whether entries of x have weights. Of a
 * weight of integers `words` is what is stored.
 */
export function checkedFactors(
  label: string,
  problem: Pick<ProjectionProblem, "x" | "weight" | "quantised">,
) {
  const x = checkedSpec(label, "x", problem.x, FLOATS);
  check(
    x.shape.length >= 1 && x.shape.length <= 4,
    "argument",
    () => `${label}: x must have one to four axes, [..., K], got [${x.shape.join(", ")}].`,
  );
  const inner = x.shape[x.shape.length - 1];
  const quantised = problem.quantised && checkedIntegers(label, problem.quantised, inner);
  const words = quantised
    ? checkedWords(label, problem.weight)
    : checkedSpec(label, "weight", problem.weight, FLOATS);
  const weight = quantised ? unpacked(label, words, inner, quantised) : words;
  const [columns, inputs] = weight.shape.slice(-2);
  const each = weight.shape.slice(0, -2);
  check(
    weight.shape.length >= 2 && inputs === inner,
    "argument",
    () =>
      `${label}: weight must be [out, in] with in = ${inner} for x [${x.shape.join(", ")}], got [${weight.shape.join(", ")}]. One that is stored [in, out] is given as permute(1, 0).`,
  );
  check(
    each.length === 0 ||
      (weight.shape.length === x.shape.length &&
        each.every((size, axis) => size === x.shape[axis] || size === 1)),
    "argument",
    () =>
      `${label}: a weight for each batch entry or head has the axes of x [${x.shape.join(", ")}], or 1, before [out, in]; got [${weight.shape.join(", ")}].`,
  );
  const isEach = each.length > 0;
  return { x, weight, words, quantised, each: isEach, shape: [...x.shape.slice(0, -1), columns] };
}

/** A weight of words with the shape of its integers; its strides still count words. */
function unpacked(
  label: string,
  words: ResolvedSpec,
  inner: number,
  integers: WeightIntegers,
): ResolvedSpec {
  const needed = wordsOf(inner, integers);
  check(
    words.shape.length >= 2 && words.shape[words.shape.length - 1] === needed,
    "argument",
    () =>
      `${label}: weight must be [out, ${needed}]: for x of ${inner} elements, words of int${integers.bits} with a scale for each ${integers.group}; got [${words.shape.join(", ")}].`,
  );
  return { ...words, shape: [...words.shape.slice(0, -1), inner] };
}

/** The spec with four axes, of which the added first ones have size 1. */
export const padded = (spec: ResolvedSpec): ResolvedSpec => {
  const missing = 4 - spec.shape.length;
  return {
    ...spec,
    shape: [...new Array<number>(missing).fill(1), ...spec.shape],
    strides: [...new Array<number>(missing).fill(0), ...spec.strides],
  };
};

/**
 * Gives x and output four axes, with their rows in as few axes as possible: axes whose rows follow
 * each other at one distance in both tensors become one. So a batch of single rows fills a tile.
 */
export function foldRows(x: ResolvedSpec, output: ResolvedSpec): [ResolvedSpec, ResolvedSpec] {
  const axes: { size: number; x: number; output: number }[] = [];
  for (let axis = x.shape.length - 2; axis >= 0; axis--) {
    const next = { size: x.shape[axis], x: x.strides[axis], output: output.strides[axis] };
    const last = axes[0];
    if (next.size === 1) continue;
    if (last && next.x === last.size * last.x && next.output === last.size * last.output)
      last.size *= next.size;
    else axes.unshift(next);
  }
  const shape = axes.map(({ size }) => size);
  const of = (spec: ResolvedSpec, strides: readonly number[]) =>
    padded({
      ...spec,
      shape: [...shape, spec.shape[spec.shape.length - 1]],
      strides: [...strides, spec.strides[spec.strides.length - 1]],
    });
  return [
    of(
      x,
      axes.map((axis) => axis.x),
    ),
    of(
      output,
      axes.map((axis) => axis.output),
    ),
  ];
}

/** The spec with its last two axes exchanged. */
export function exchangedRows(spec: ResolvedSpec): ResolvedSpec {
  const exchange = ([b, h, m, d]: readonly number[]) => [b, h, d, m];
  return { ...spec, shape: exchange(spec.shape), strides: exchange(spec.strides) };
}
