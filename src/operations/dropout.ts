// Dropout of the elements of a tensor: the plan, and the one-liner on top of it.

import { check, show } from "../errors.ts";
import { isLength, type OptionNames, readOptions } from "../given.ts";
import { denseStrides, type FloatTensor, resolveSpec, type Tensor } from "../gpu/tensor.ts";
import { dropoutSpecialisation } from "../kernels/dropout.ts";
import { pointwiseWorkgroups } from "../kernels/pointwise.ts";
import { rowKernel } from "../kernels/rows.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../plan/operation.ts";
import type { Plan } from "../plan/plan.ts";
import { checkTensors, type RunOptions } from "../plan/run.ts";
import {
  bindingBase,
  checkedSpec,
  expectApart,
  expectShape,
  FLOATS,
  type ResolvedSpec,
} from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import { drawStep } from "./draw_step.ts";
import { pointwiseStage } from "./pointwise.ts";
import { broadcastTo, foldRows, layRows } from "./row_axes.ts";

/** Which elements a dropout keeps. */
export interface DropoutChoice {
  /** The probability with which an element is dropped, from 0 to 1. */
  readonly p: number;
  /**
   * A whole number from 0 up to 2^53: the key of the generator. Needed unless p is 0 or there is a
   * `keepMask`.
   */
  readonly seed?: number;
}

/**
 * The dropout that a plan is made for. Shapes and strides are fixed by the plan; memory is given at
 * encode.
 */
export interface DropoutProblem extends DropoutChoice {
  /** f32, f16 or bf16, of any shape. A tensor, or what it will look like. */
  readonly x: TensorSpec;
  /**
   * The number of the run, so that a plan that is replayed drops other elements each time: a whole
   * number from 0 up to 2^32 - 1, or an i32 or u32 tensor of one element, [] or [1], which stays on
   * the GPU. Default 0.
   */
  readonly step?: number | TensorSpec;
  /**
   * u8: which elements are kept, 0 for what is dropped, in place of a seed; it broadcasts to the
   * shape of x.
   */
  readonly keepMask?: TensorSpec;
  /** f32, f16 or bf16, of the shape of x. Default: dense, the dtype of x. */
  readonly output?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"dropout"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
const DROPOUT_PROBLEM: OptionNames<DropoutProblem> = {
  x: "any",
  p: "number",
  seed: "number",
  step: "any",
  keepMask: "any",
  output: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface DropoutBindings {
  readonly x?: Tensor;
  readonly output?: Tensor;
  /** Bound only if the plan was made with a tensor for it, as is the member that follows. */
  readonly step?: Tensor;
  readonly keepMask?: Tensor;
}

/** A compiled dropout. */
export type DropoutPlan = Plan<DropoutBindings>;

/**
 * Compiles a dropout:
 *
 * ```
 * output[i] = x[i] / (1 - p)   if element i is kept, otherwise 0, whatever x[i] is
 * element i is kept if the first word of threefry(key = seed, counter = [i, step]) is below
 * floor((1 - p) 2^32)
 * ```
 *
 * i counts the elements of x in row-major order, whatever its strides, so that the same seed and
 * step drop the same elements again: the gradient of a dropout is the same dropout of the gradient,
 * `dX = dropout(dOutput, the same options)`, and no mask is kept. With p = 1 everything is dropped,
 * with p = 0 nothing.
 *
 * Source: Srivastava et al., Dropout (JMLR 15, 2014), scaled at training; the generator is
 * Threefry-2x32 with 20 rounds (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC
 * 2011), as for the probabilities of attention. Lengths, strides, p, seed and step compile nothing.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const step = tensor(device, [1], { dtype: "u32" });
 * const plan = await planDropout(device, { x: { shape: [8, 128, 768] }, p: 0.1, seed: 7, step });
 * plan.encode(pass, { x: hidden, output });
 */
export function planDropout(device: GPUDevice, problem: DropoutProblem): Promise<DropoutPlan> {
  return DROPOUT.plan(device, problem);
}

interface ResolvedDropout {
  readonly x: ResolvedSpec;
  readonly output: ResolvedSpec;
  readonly p: number;
  readonly seed: number;
  readonly step: ResolvedSpec | number;
  readonly keepMask: ResolvedSpec | undefined;
}

const DROPOUT = operation<
  DropoutProblem,
  DropoutBindings,
  ResolvedDropout,
  { readonly output: FloatTensor }
>({
  name: "dropout",
  problem: DROPOUT_PROBLEM,
  resolve,
  tensors({ add, own }, { x, output, step, keepMask }, problem) {
    add("output", output, problem.output, true);
    add("x", x, problem.x);
    if (keepMask) add("keepMask", keepMask, problem.keepMask);
    if (typeof step !== "number") add("step", step, problem.step);
    // The plan's name for its step: tables.
    else if (!keepMask) own("tables", [1], { dtype: "u32", data: [step] });
  },
  kernel,
  results: ({ output }) => ({ output }),
});

function resolve(problem: DropoutProblem, { label }: Caller): ResolvedDropout {
  const { p, seed } = problem;
  check(
    p >= 0 && p <= 1,
    "argument",
    () => `${label}: p must be a probability from 0 to 1, got ${show(p)}.`,
  );
  const x = checkedSpec(label, "x", problem.x, FLOATS);
  const output = problem.output
    ? checkedSpec(label, "output", problem.output, FLOATS)
    : resolveSpec("output", { shape: x.shape, dtype: x.dtype });
  expectShape(label, "output", output, x.shape, "like x");
  expectApart(label, "output", output);
  const keepMask =
    problem.keepMask === undefined
      ? undefined
      : checkedSpec(label, "keepMask", problem.keepMask, ["u8"]);
  check(
    keepMask === undefined || (seed === undefined && problem.step === undefined),
    "argument",
    () => `${label}: keepMask says what is kept, and so do seed and step; leave one out.`,
  );
  check(
    seed === undefined ? keepMask !== undefined || p === 0 : isLength(seed),
    "argument",
    () => `${label}: seed must be a whole number from 0 up to 2^53, got ${seed}.`,
  );
  const elements = x.shape.reduce((product, size) => product * size, 1);
  check(
    elements <= 2 ** 32,
    "limit",
    () => `${label}: dropout numbers elements below 2^32; x has ${elements}.`,
  );
  return { x, output, p, seed: seed ?? 0, step: drawStep(label, problem.step ?? 0), keepMask };
}

function kernel({ x, output, p, seed, step, keepMask }: ResolvedDropout, caller: Caller): Stage {
  const { label, device } = caller;
  if (1 - p === 1 && !keepMask) {
    const none = { bias: undefined, residual: undefined, factor: undefined };
    return pointwiseStage({ ...none, x, output }, caller);
  }
  const rowMajor = { ...x, strides: denseStrides(x.shape), offset: 0 };
  const places = keepMask ? broadcastTo(label, "keepMask", keepMask, x.shape) : rowMajor;
  const { specs, rows, width } = foldRows<"source" | "o" | "element">(
    label,
    { source: x, o: output, element: places },
    0,
    { element: "keepMask" },
  );
  const { element, ...tensors } = specs;
  const [b, h, n, d] = (element as ResolvedSpec).strides;
  const laid = layRows(
    device,
    { specs: tensors, rows, width },
    {
      seed_low: seed % 2 ** 32,
      seed_high: Math.floor(seed / 2 ** 32),
      keep_below: Math.floor((1 - p) * 2 ** 32),
      keep_factor: p < 1 ? 1 / (1 - p) : 0,
      step_base: typeof step === "number" ? 0 : bindingBase(device, step),
      element_base: keepMask ? bindingBase(device, keepMask) : 0,
      element_stride_b: b,
      element_stride_h: h,
      element_stride_n: n,
      element_stride_d: d,
    },
  );
  return {
    source: rowKernel("dropout", dropoutSpecialisation(laid.accesses, keepMask !== undefined)),
    names: {
      source: "x",
      o: "output",
      keep_mask: "keepMask",
      steps: typeof step === "number" ? "tables" : "step",
    },
    params: laid.params,
    workgroups: pointwiseWorkgroups(rows, width),
  };
}

/** Options of {@link dropout}. */
export interface DropoutOptions
  extends Omit<DropoutProblem, "x" | "step" | "keepMask" | "output">,
    RunOptions {
  /**
   * The number of the run, with which other elements are dropped: a number, or a tensor of one.
   * Default 0.
   */
  readonly step?: number | Tensor;
  /** u8, 0 for what is dropped, in place of a seed; it broadcasts to the shape of x. */
  readonly keepMask?: Tensor;
  /**
   * Where the result goes. Default: a new dense tensor of the shape and dtype of x, which is the
   * caller's to destroy.
   */
  readonly output?: Tensor;
}

/** The names of the options. */
const DROPOUT_OPTIONS = optionsBeside(DROPOUT_PROBLEM, "x");

/**
 * Drops elements at random and scales the others, and gives the gradient of that if x is the
 * gradient of the output. See {@link planDropout} for the formula and the rules.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x f32, f16 or bf16, of any shape
 * @returns `{ output }`, of the shape of x
 *
 * @example
 * const options = { p: 0.1, seed: 7, step: 3 };
 * const { output } = await dropout(hidden, options);
 * const { output: dHidden } = await dropout(dOutput, options);
 */
export async function dropout(
  x: Tensor,
  given: DropoutOptions,
): Promise<{ readonly output: FloatTensor }> {
  const name = "dropout";
  const options = await readOptions(name, given, DROPOUT_OPTIONS);
  const { step, keepMask, output } = options;
  const stored = typeof step === "number" ? undefined : step;
  checkTensors(options.label ?? name, { x }, { step: stored, keepMask, output });
  return DROPOUT.run({ device: x.device, name, problem: { ...options, x }, options });
}
