// The softmax along an axis and its logarithm: the plan, and the one-liners on top of it.

import { type OptionNames, readOptions } from "../given.ts";
import { checkDevice } from "../gpu/buffers.ts";
import { type FloatTensor, resolveSpec, type Tensor } from "../gpu/tensor.ts";
import { softmaxSpecialisation } from "../kernels/row_softmax.ts";
import { rowKernel, rowWorkgroups } from "../kernels/rows.ts";
import { type OneKernel, planOneKernel, planTensors } from "../plan/one_kernel.ts";
import type { Plan } from "../plan/plan.ts";
import { checkTensors, RUN_OPTIONS, type RunOptions, runOnce } from "../plan/run.ts";
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
  /** The logarithm of the softmax. Default false. */
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
 * Memory for one run of a plan: tensors that look as the plan was told. Those it was made with are
 * the default.
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
 * Nothing overflows: no exponent is above 0. An element of -Infinity counts for nothing: its
 * probability is 0, and so are all of a slice that has nothing else, as in attention a row without
 * keys is 0 (the formula, and ONNX' reference, would give NaN there); its logarithm is -Infinity. A
 * slice with NaN or +Infinity is NaN, all of it, logarithms too. Sums are f32, whatever the
 * storage; lengths and strides compile nothing. The same inputs on the same device give the same
 * bits.
 *
 * Source: arXiv 1805.02867, algorithm 3. Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const plan = await planSoftmax(device, { x: { shape: [8, 12, 100, 100] } });
 * plan.encode(pass, { x: scores, output });
 */
export async function planSoftmax(
  device: GPUDevice,
  problem: SoftmaxProblem,
): Promise<SoftmaxPlan> {
  const taken = await readOptions("softmax", problem, SOFTMAX_PROBLEM);
  const { plan, allocated } = await prepareSoftmax(device, taken, "softmax");
  await allocated;
  return plan;
}

/**
 * A plan, and a promise that rejects if its buffers could not be had: for callers with more to wait
 * for.
 */
async function prepareSoftmax(device: GPUDevice, problem: SoftmaxProblem, name: string) {
  const { label = name } = problem;
  checkDevice(device);
  const resolved = resolveSoftmax(label, problem);
  const { x, output } = resolved;
  const tensors = planTensors(device, label, ({ add }) => {
    add("x", x, problem.x);
    add("output", output, problem.output, true);
  });
  const { plan, allocated } = await planOneKernel<SoftmaxBindings>(device, label, tensors, () =>
    kernelOf(device, label, resolved),
  );
  return { plan, allocated, output };
}

interface ResolvedSoftmax {
  readonly x: ResolvedSpec;
  readonly output: ResolvedSpec;
  /** From 0 on. */
  readonly axis: number;
  readonly log: boolean;
}

function resolveSoftmax(label: string, problem: SoftmaxProblem): ResolvedSoftmax {
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

function kernelOf(
  device: GPUDevice,
  label: string,
  { x, output, axis, log }: ResolvedSoftmax,
): OneKernel {
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
  const shared = lanesOf(folded);
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
const { x: _x, log: _log, ...SOFTMAX_OPTIONS } = { ...SOFTMAX_PROBLEM, ...RUN_OPTIONS };

async function runSoftmax(name: string, x: Tensor, asked: SoftmaxOptions, log: boolean) {
  const options = await readOptions(name, asked, SOFTMAX_OPTIONS);
  const { label = name, output: given } = options;
  checkTensors(label, { x, ...(given !== undefined && { output: given }) });
  const { plan, allocated, output } = await prepareSoftmax(x.device, { ...options, x, log }, name);
  return runOnce(x.device, label, { plan, allocated }, options, (make) => ({
    output: given ?? make("output", output.shape, output.dtype),
  })) as Promise<{ output: FloatTensor }>;
}

/**
 * The softmax along an axis. See {@link planSoftmax} for the formula and the rules.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * @param x f32, f16 or bf16, of any shape with one axis or more
 * @returns `{ output }`, of the shape of x
 * Rejects with FoveaError, and then has allocated nothing.
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
 * The logarithm of the softmax along an axis: x - m - log(sum exp(x - m)), with nothing lost where
 * probabilities are small. See {@link planSoftmax} for the rules.
 *
 * @param x f32, f16 or bf16, of any shape with one axis or more
 * @returns `{ output }`, of the shape of x
 * Rejects with FoveaError, and then has allocated nothing.
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
