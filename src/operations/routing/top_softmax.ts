// The softmax of the largest elements of rows, as routers of experts take it.

import { check, show } from "../../errors.ts";
import type { OptionNames } from "../../given.ts";
import { type FloatTensor, resolveSpec, type Tensor } from "../../gpu/tensor.ts";
import { ROWS_OF_WORKGROUP, topSoftmaxSpecialisation } from "../../kernels/models/top_softmax.ts";
import { rowKernel } from "../../kernels/rows.ts";
import { type Caller, operation, type Stage } from "../../plan/operation.ts";
import type { Plan } from "../../plan/plan.ts";
import {
  checkedSpec,
  expectApart,
  expectShape,
  FLOATS,
  type ResolvedSpec,
} from "../../plan/specs.ts";
import type { TensorSpec } from "../../types.ts";
import { foldRows, layRows } from "../row_axes.ts";

/** What a plan is made for. Shapes and strides are fixed by the plan; memory is given at encode. */
export interface TopSoftmaxProblem {
  /** [..., W] f32, f16 or bf16, with one axis or more. A tensor, or what it will look like. */
  readonly x: TensorSpec;
  /** How many of the largest elements of a row count, from 1 to W. */
  readonly kept: number;
  /** f32, f16 or bf16, of the shape of x. Default: dense, of the dtype of x. */
  readonly output?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"top softmax"`. */
  readonly label?: string;
}

const PROBLEM: OptionNames<TopSoftmaxProblem> = {
  x: "any",
  kept: "number",
  output: "any",
  label: "string",
};

/** Memory for one run of a plan. The tensors that it was made with are the default. */
export interface TopSoftmaxBindings {
  readonly x?: Tensor;
  readonly output?: Tensor;
}

interface Resolved {
  readonly x: ResolvedSpec;
  readonly output: ResolvedSpec;
  readonly kept: number;
}

/**
 * Compiles the softmax of the `kept` largest elements of each row, which gives 0 for the others: the
 * shares of a token's experts, by the logits of a router. Of equal elements the first ones count,
 * and a NaN is never one of them. Sums are f32. Lengths, strides and `kept` compile nothing.
 *
 * Rejects with FoveaError for shapes that differ, and for a `kept` that is no number of elements.
 */
export function planTopSoftmax(
  device: GPUDevice,
  problem: TopSoftmaxProblem,
): Promise<Plan<TopSoftmaxBindings>> {
  return TOP_SOFTMAX.plan(device, problem);
}

const TOP_SOFTMAX = operation<
  TopSoftmaxProblem,
  TopSoftmaxBindings,
  Resolved,
  { readonly output: FloatTensor }
>({
  name: "top softmax",
  problem: PROBLEM,
  resolve,
  tensors({ add }, { x, output }, problem) {
    add("x", x, problem.x);
    add("output", output, problem.output, true);
  },
  kernel,
  results: ({ output }) => ({ output }),
});

function resolve(problem: TopSoftmaxProblem, { label }: Caller): Resolved {
  const { kept } = problem;
  const x = checkedSpec(label, "x", problem.x, FLOATS);
  const width = x.shape[x.shape.length - 1] ?? 0;
  check(
    Number.isInteger(kept) && kept > 0 && kept <= width,
    "argument",
    () => `${label}: kept must be a whole number from 1 to ${width}, got ${show(kept)}.`,
  );
  const output = problem.output
    ? checkedSpec(label, "output", problem.output, FLOATS)
    : resolveSpec("output", { shape: x.shape, dtype: x.dtype });
  expectShape(label, "output", output, x.shape, "like x");
  expectApart(label, "output", output);
  return { x, output, kept };
}

function kernel({ x, output, kept }: Resolved, { label, device }: Caller): Stage {
  const folded = foldRows(label, { source: x, o: output }, 1);
  const { accesses, params } = layRows(device, folded, { kept });
  return {
    source: rowKernel("top_softmax", topSoftmaxSpecialisation(accesses)),
    names: { source: "x", o: "output" },
    params,
    workgroups: Math.ceil(folded.rows / ROWS_OF_WORKGROUP),
  };
}
