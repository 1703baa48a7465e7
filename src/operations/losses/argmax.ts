// The place of the largest element along an axis: the plan, and the one-liner on top of it.

import { check } from "../../errors.ts";
import { type OptionNames, readOptions } from "../../given.ts";
import { resolveSpec, type Tensor } from "../../gpu/tensor.ts";
import { argmaxSpecialisation } from "../../kernels/losses/argmax.ts";
import { rowKernel, rowWorkgroups } from "../../kernels/rows.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../../plan/operation.ts";
import type { Plan } from "../../plan/plan.ts";
import { checkTensors, type RunOptions } from "../../plan/run.ts";
import {
  checkedSpec,
  expectApart,
  expectShape,
  FLOATS,
  type ResolvedSpec,
} from "../../plan/specs.ts";
import type { TensorSpec } from "../../types.ts";
import { alongRows, axisFromStart, foldRows, lanesOf, layRows, rowNumbers } from "../row_axes.ts";

/** What a plan is made for. Shapes and strides are fixed by the plan; memory is given at encode. */
export interface ArgmaxProblem {
  /** f32, f16 or bf16, of any shape with one axis or more. A tensor, or what it will look like. */
  readonly x: TensorSpec;
  /** The axis along which the largest element is looked for; -1 is the last one. Default -1. */
  readonly axis?: number;
  /** i32, of the shape of x without that axis. Default: dense. */
  readonly output?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"argmax"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
const ARGMAX_PROBLEM: OptionNames<ArgmaxProblem> = {
  x: "any",
  axis: "number",
  output: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface ArgmaxBindings {
  readonly x?: Tensor;
  readonly output?: Tensor;
}

/** A compiled search for largest elements. */
export type ArgmaxPlan = Plan<ArgmaxBindings>;

/**
 * Compiles a search for the place of the largest element along an axis: from 0 up, and the first
 * one if several are as large. A NaN counts as larger than any number, as in PyTorch, so that it
 * doesn't go unseen. Lengths and strides compile nothing.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const plan = await planArgmax(device, { x: { shape: [1024, 50257] } });
 * plan.encode(pass, { x: logits, output: tokens });
 */
export function planArgmax(device: GPUDevice, problem: ArgmaxProblem): Promise<ArgmaxPlan> {
  return ARGMAX.plan(device, problem);
}

interface ResolvedArgmax {
  readonly x: ResolvedSpec;
  readonly output: ResolvedSpec;
  /** The axis, counted from 0. */
  readonly axis: number;
}

const ARGMAX = operation<
  ArgmaxProblem,
  ArgmaxBindings,
  ResolvedArgmax,
  { readonly output: Tensor<"i32"> }
>({
  name: "argmax",
  problem: ARGMAX_PROBLEM,
  resolve,
  tensors({ add }, { x, output }, problem) {
    add("output", output, problem.output, true);
    add("x", x, problem.x);
  },
  kernel,
  results: ({ output }) => ({ output }),
});

const without = <T>(list: readonly T[], axis: number) => list.filter((_, at) => at !== axis);

function resolve(problem: ArgmaxProblem, { label }: Caller): ResolvedArgmax {
  const x = checkedSpec(label, "x", problem.x, FLOATS);
  const axis = axisFromStart(label, problem.axis ?? -1, x.shape);
  check(
    x.shape[axis] > 0,
    "argument",
    () =>
      `${label}: there is no largest of no elements along axis ${axis} of [${x.shape.join(", ")}].`,
  );
  const shape = without(x.shape, axis);
  const output = problem.output
    ? checkedSpec(label, "output", problem.output, ["i32"])
    : resolveSpec("output", { shape, dtype: "i32" });
  expectShape(label, "output", output, shape, "like x without the axis");
  expectApart(label, "output", output);
  return { x, output, axis };
}

function kernel({ x, output, axis }: ResolvedArgmax, { label, device }: Caller): Stage {
  const turned = {
    ...x,
    shape: [...without(x.shape, axis), x.shape[axis]],
    strides: [...without(x.strides, axis), x.strides[axis]],
  };
  const { specs, rows, width } = foldRows<"o" | "result">(
    label,
    { o: turned, result: alongRows(label, "output", output, turned.shape) },
    1,
    { o: "x", result: "output" },
  );
  const result = rowNumbers(device, "result", specs.result as ResolvedSpec);
  const laid = layRows(device, { specs: { source: specs.o }, rows, width }, result);
  const shared = lanesOf(device, { specs, rows, width });
  return {
    source: rowKernel("row_argmax", argmaxSpecialisation(laid.accesses, shared)),
    names: { source: "x", largest: "output" },
    params: laid.params,
    workgroups: rowWorkgroups(rows, shared.lanes),
  };
}

/** Options of {@link argmax}. */
export interface ArgmaxOptions extends RunOptions {
  /** The axis along which the largest element is looked for; -1 is the last one. Default -1. */
  readonly axis?: number;
  /** Where the places go. Default: a new dense i32 tensor, which is the caller's to destroy. */
  readonly output?: Tensor;
  /** Name in errors and captures. */
  readonly label?: string;
}

/** The names of the options. */
const ARGMAX_OPTIONS = optionsBeside(ARGMAX_PROBLEM, "x");

/**
 * The place of the largest element along an axis. See {@link planArgmax} for the rules.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x f32, f16 or bf16, of any shape with one axis or more
 * @returns `{ output }`, i32, of the shape of x without the axis
 *
 * @example
 * const { output } = await argmax(logits);
 */
export async function argmax(
  x: Tensor,
  given: ArgmaxOptions = {},
): Promise<{ readonly output: Tensor<"i32"> }> {
  const name = "argmax";
  const options = await readOptions(name, given, ARGMAX_OPTIONS);
  checkTensors(options.label ?? name, { x }, { output: options.output });
  return ARGMAX.run({ device: x.device, name, problem: { ...options, x }, options });
}
