// The softmax along an axis and its logarithm: the plan, and the one-liners on top of it.

import { type OptionNames, readOptions } from "../given.ts";
import { type FloatTensor, resolveSpec, type Tensor } from "../gpu/tensor.ts";
import { softmaxSpecialisation } from "../kernels/row_softmax.ts";
import { rowKernel, rowWorkgroups } from "../kernels/rows.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../plan/operation.ts";
import type { Plan } from "../plan/plan.ts";
import { checkTensors, type RunOptions } from "../plan/run.ts";
import { checkedSpec, expectApart, expectShape, FLOATS, type ResolvedSpec } from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import { axisFromStart, foldRows, lanesOf, layRows } from "./row_axes.ts";

/**
 * The softmax that a plan is made for. Shapes and strides are fixed by the plan; memory is given at
 * encode.
 */
export interface SoftmaxProblem {
  /** f32, f16 or bf16, of any shape with one axis or more. A tensor, or what it will look like. */
  readonly x: TensorSpec;
  /** The axis whose elements sum to 1; -1 is the last one. Default -1. */
  readonly axis?: number;
  /** Compute the logarithm of the softmax. Default false. */
  readonly log?: boolean;
  /** f32, f16 or bf16, of the shape of x. Default: dense, the dtype of x. */
  readonly output?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"softmax"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
const SOFTMAX_PROBLEM: OptionNames<SoftmaxProblem> = {
  x: "any",
  axis: "number",
  log: "boolean",
  output: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface SoftmaxBindings {
  readonly x?: Tensor;
  readonly output?: Tensor;
}

/** A compiled softmax. */
export type SoftmaxPlan = Plan<SoftmaxBindings>;

/**
 * Compiles the softmax along an axis, or its logarithm:
 *
 * ```
 * output[.., d, ..] = exp(x[.., d, ..] - m) / l        m = max_d x,   l = sum_d exp(x - m)
 *                   = x[.., d, ..] - m - log(l)        with log: true
 * ```
 *
 * Nothing overflows: no exponent is above 0. An element of -Infinity has the probability 0, and its
 * logarithm is -Infinity. So a slice of nothing but -Infinity is 0, as a row without keys is in
 * attention (the formula, and ONNX' reference, would give NaN). A slice with NaN or +Infinity is
 * NaN as a whole, and so are its logarithms. Sums are f32, whatever the storage; lengths and
 * strides compile nothing. The same inputs on the same device give the same bits.
 *
 * Source: arXiv 1805.02867, algorithm 3. Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const plan = await planSoftmax(device, { x: { shape: [8, 12, 100, 100] } });
 * plan.encode(pass, { x: scores, output });
 */
export function planSoftmax(device: GPUDevice, problem: SoftmaxProblem): Promise<SoftmaxPlan> {
  return SOFTMAX.plan(device, problem);
}

const SOFTMAX = operation<
  SoftmaxProblem,
  SoftmaxBindings,
  ResolvedSoftmax,
  { readonly output: FloatTensor }
>({
  name: "softmax",
  problem: SOFTMAX_PROBLEM,
  resolve,
  tensors({ add }, { x, output }, problem) {
    add("x", x, problem.x);
    add("output", output, problem.output, true);
  },
  kernel,
  results: ({ output }) => ({ output }),
});

interface ResolvedSoftmax {
  readonly x: ResolvedSpec;
  readonly output: ResolvedSpec;
  /** The axis of the softmax, counted from 0. */
  readonly axis: number;
  readonly log: boolean;
}

function resolve(problem: SoftmaxProblem, { label }: Caller): ResolvedSoftmax {
  const { log = false } = problem;
  const x = checkedSpec(label, "x", problem.x, FLOATS);
  const axis = axisFromStart(label, problem.axis ?? -1, x.shape);
  const output = problem.output
    ? checkedSpec(label, "output", problem.output, FLOATS)
    : resolveSpec("output", { shape: x.shape, dtype: x.dtype });
  expectShape(label, "output", output, x.shape, "like x");
  expectApart(label, "output", output);
  return { x, output, axis, log };
}

function kernel({ x, output, axis, log }: ResolvedSoftmax, { label, device }: Caller): Stage {
  const last = <T>(list: readonly T[]) => [
    ...list.slice(0, axis),
    ...list.slice(axis + 1),
    list[axis],
  ];
  const turned = (spec: ResolvedSpec) => ({
    ...spec,
    shape: last(spec.shape),
    strides: last(spec.strides),
  });
  const folded = foldRows(label, { source: turned(x), o: turned(output) }, 1);
  const { accesses, params } = layRows(device, folded);
  const shared = lanesOf(device, folded);
  return {
    source: rowKernel(
      "row_softmax",
      softmaxSpecialisation(accesses, { ...shared, logarithm: log }),
    ),
    names: { source: "x", o: "output" },
    params,
    workgroups: rowWorkgroups(folded.rows, shared.lanes),
  };
}

/** Options of {@link softmax} and {@link logSoftmax}. */
export interface SoftmaxOptions extends RunOptions {
  /** The axis whose elements sum to 1; -1 is the last one. Default -1. */
  readonly axis?: number;
  /**
   * Where the result goes. Default: a new dense tensor of the shape and dtype of x, which is the
   * caller's to destroy.
   */
  readonly output?: Tensor;
  /** Name in errors and captures. */
  readonly label?: string;
}

/** The names of the options. */
const SOFTMAX_OPTIONS = optionsBeside(SOFTMAX_PROBLEM, "x", "log");

async function runSoftmax(name: string, x: Tensor, given: SoftmaxOptions, log: boolean) {
  const options = await readOptions(name, given, SOFTMAX_OPTIONS);
  checkTensors(options.label ?? name, { x }, { output: options.output });
  return SOFTMAX.run({ device: x.device, name, problem: { ...options, x, log }, options });
}

/**
 * The softmax along an axis. See {@link planSoftmax} for the formula and the rules.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x f32, f16 or bf16, of any shape with one axis or more
 * @returns `{ output }`, of the shape of x
 *
 * @example
 * const { output } = await softmax(logits, { axis: 1 });
 */
export function softmax(
  x: Tensor,
  options: SoftmaxOptions = {},
): Promise<{ readonly output: FloatTensor }> {
  return runSoftmax("softmax", x, options, false);
}

/**
 * The logarithm of the softmax along an axis: x - m - log(sum exp(x - m)), which stays exact for
 * small probabilities. See {@link planSoftmax} for the rules.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x f32, f16 or bf16, of any shape with one axis or more
 * @returns `{ output }`, of the shape of x
 *
 * @example
 * const { output } = await logSoftmax(logits);
 */
export function logSoftmax(
  x: Tensor,
  options: SoftmaxOptions = {},
): Promise<{ readonly output: FloatTensor }> {
  return runSoftmax("logSoftmax", x, options, true);
}
