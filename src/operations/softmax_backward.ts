// The gradient of the softmax along an axis, and of its logarithm: the plan, and the one-liners on
// top of it.

import { type OptionNames, readOptions } from "../given.ts";
import { type FloatTensor, resolveSpec, type Tensor } from "../gpu/tensor.ts";
import { softmaxBackwardSpecialisation } from "../kernels/gradients/row_softmax.ts";
import { rowGradientKernel } from "../kernels/gradients/rows.ts";
import { rowWorkgroups } from "../kernels/rows.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../plan/operation.ts";
import type { Plan } from "../plan/plan.ts";
import { checkTensors, type RunOptions } from "../plan/run.ts";
import { checkedSpec, expectApart, expectShape, FLOATS, type ResolvedSpec } from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import { axisFromStart, foldRows, lanesOf } from "./row_axes.ts";
import { layGradientRows } from "./row_gradients.ts";
import type { SoftmaxProblem } from "./softmax.ts";

/**
 * The gradient of a softmax that a plan is made for. Shapes and strides are fixed by the plan;
 * memory is given at encode.
 */
export interface SoftmaxBackwardProblem extends Pick<SoftmaxProblem, "x" | "axis" | "log"> {
  /** Gradient of the output, f32, f16 or bf16, of the shape of x. */
  readonly dOutput: TensorSpec;
  /** f32, f16 or bf16, of the shape of x. Default: dense, the dtype of x. */
  readonly dX?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"softmaxBackward"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
const SOFTMAX_BACKWARD_PROBLEM: OptionNames<SoftmaxBackwardProblem> = {
  x: "any",
  axis: "number",
  log: "boolean",
  dOutput: "any",
  dX: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface SoftmaxBackwardBindings {
  readonly x?: Tensor;
  readonly dOutput?: Tensor;
  readonly dX?: Tensor;
}

/** A compiled gradient of a softmax. */
export type SoftmaxBackwardPlan = Plan<SoftmaxBackwardBindings>;

/**
 * Compiles the gradient of {@link planSoftmax}, the softmax p along an axis or its logarithm:
 *
 * ```
 * dX = p (dOutput - sum p dOutput)
 * dX = dOutput - p sum dOutput              with log: true;   the sums are along the axis
 * ```
 *
 * An element of -Infinity has the gradient 0, and the gradient of its result is not read; so a
 * slice of nothing but -Infinity is 0. A slice of x with NaN or +Infinity has gradients of NaN
 * elsewhere. p is computed again from x. Sums are f32, whatever the storage; lengths and strides
 * compile nothing. The same inputs on the same device give the same bits.
 *
 * Source: FlashAttention (arXiv 2205.14135), appendix B.2. Rejects with FoveaError, as
 * {@link planAttention} does.
 *
 * @example
 * const shape = [8, 12, 100, 100];
 * const plan = await planSoftmaxBackward(device, { x: { shape }, dOutput: { shape } });
 * plan.encode(pass, { x: scores, dOutput, dX });
 */
export function planSoftmaxBackward(
  device: GPUDevice,
  problem: SoftmaxBackwardProblem,
): Promise<SoftmaxBackwardPlan> {
  return SOFTMAX_BACKWARD.plan(device, problem);
}

const SOFTMAX_BACKWARD = operation<
  SoftmaxBackwardProblem,
  SoftmaxBackwardBindings,
  ResolvedSoftmaxBackward,
  { readonly dX: FloatTensor }
>({
  name: "softmaxBackward",
  problem: SOFTMAX_BACKWARD_PROBLEM,
  resolve,
  tensors({ add }, { x, dOutput, dX }, problem) {
    add("dX", dX, problem.dX, true);
    add("x", x, problem.x);
    add("dOutput", dOutput, problem.dOutput);
  },
  kernel,
  results: ({ dX }) => ({ dX }),
});

interface ResolvedSoftmaxBackward {
  readonly x: ResolvedSpec;
  readonly dOutput: ResolvedSpec;
  readonly dX: ResolvedSpec;
  /** The axis of the softmax, counted from 0. */
  readonly axis: number;
  readonly log: boolean;
}

function resolve(problem: SoftmaxBackwardProblem, { label }: Caller): ResolvedSoftmaxBackward {
  const { log = false } = problem;
  const x = checkedSpec(label, "x", problem.x, FLOATS);
  const axis = axisFromStart(label, problem.axis ?? -1, x.shape);
  const dOutput = checkedSpec(label, "dOutput", problem.dOutput, FLOATS);
  const dX = problem.dX
    ? checkedSpec(label, "dX", problem.dX, FLOATS)
    : resolveSpec("dX", { shape: x.shape, dtype: x.dtype });
  expectShape(label, "dOutput", dOutput, x.shape, "like x");
  expectShape(label, "dX", dX, x.shape, "like x");
  expectApart(label, "dX", dX);
  return { x, dOutput, dX, axis, log };
}

function kernel(
  { x, dOutput, dX, axis, log }: ResolvedSoftmaxBackward,
  { label, device }: Caller,
): Stage {
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
  const specs = { source: turned(x), gradient: turned(dOutput), o: turned(dX) };
  const folded = foldRows<keyof typeof specs>(label, specs, 1, NAMES);
  const laid = layGradientRows(device, folded, folded.specs);
  const shared = lanesOf(device, folded);
  return {
    source: rowGradientKernel(
      "row_softmax_backward",
      softmaxBackwardSpecialisation(laid.accesses, { ...shared, logarithm: log }),
    ),
    names: NAMES,
    params: laid,
    workgroups: rowWorkgroups(folded.rows, shared.lanes),
  };
}

/** The plan's names for what the kernel binds. */
const NAMES = { source: "x", gradient: "dOutput", o: "dX" };

/** Options of {@link softmaxBackward} and {@link logSoftmaxBackward}. */
export interface SoftmaxBackwardOptions extends RunOptions {
  /** The axis of the softmax; -1 is the last one. Default -1. */
  readonly axis?: number;
  /**
   * Where the gradient goes. Default: a new dense tensor of the shape and dtype of x, which is the
   * caller's to destroy.
   */
  readonly dX?: Tensor;
  /** Name in errors and captures. */
  readonly label?: string;
}

/** The names of the options. */
const SOFTMAX_BACKWARD_OPTIONS = optionsBeside(SOFTMAX_BACKWARD_PROBLEM, "x", "dOutput", "log");

async function runSoftmaxBackward(
  name: string,
  { x, dOutput }: { readonly x: Tensor; readonly dOutput: Tensor },
  given: SoftmaxBackwardOptions,
  log: boolean,
) {
  const options = await readOptions(name, given, SOFTMAX_BACKWARD_OPTIONS);
  checkTensors(options.label ?? name, { x, dOutput }, { dX: options.dX });
  const problem = { ...options, x, dOutput, log };
  return SOFTMAX_BACKWARD.run({ device: x.device, name, problem, options });
}

/**
 * The gradient of {@link softmax}. See {@link planSoftmaxBackward} for the formula and the rules.
 *
 * Resolves once the GPU has accepted the work; `dX.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x f32, f16 or bf16, as the forward call had it
 * @param dOutput gradient of the output, of the shape of x
 * @returns `{ dX }`, of the shape of x
 *
 * @example
 * const { dX } = await softmaxBackward(logits, dOutput, { axis: 1 });
 */
export function softmaxBackward(
  x: Tensor,
  dOutput: Tensor,
  options: SoftmaxBackwardOptions = {},
): Promise<{ readonly dX: FloatTensor }> {
  return runSoftmaxBackward("softmaxBackward", { x, dOutput }, options, false);
}

/**
 * The gradient of {@link logSoftmax}. See {@link planSoftmaxBackward} for the formula and the
 * rules.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x f32, f16 or bf16, as the forward call had it
 * @param dOutput gradient of the output, of the shape of x
 * @returns `{ dX }`, of the shape of x
 *
 * @example
 * const { dX } = await logSoftmaxBackward(logits, dOutput);
 */
export function logSoftmaxBackward(
  x: Tensor,
  dOutput: Tensor,
  options: SoftmaxBackwardOptions = {},
): Promise<{ readonly dX: FloatTensor }> {
  return runSoftmaxBackward("logSoftmaxBackward", { x, dOutput }, options, true);
}
