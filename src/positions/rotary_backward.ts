// The gradient of a rotary position embedding: the plan, and the one-liner on top of it. It is the
// forward kernel, which turns the other way.

import { type OptionNames, readOptions, type Taken } from "../given.ts";
import type { FloatTensor, Tensor } from "../gpu/tensor.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../plan/operation.ts";
import type { Plan } from "../plan/plan.ts";
import { checkTensors, type RunOptions } from "../plan/run.ts";
import { reorder } from "../plan/specs.ts";
import type { TensorSpec } from "../types.ts";
import { rotaryStage, rotaryTensors } from "./rotary.ts";
import {
  type ResolvedRotaryProblem,
  ROTARY_PROBLEM,
  type RotaryBindings,
  type RotaryProblem,
  resolveRotaryProblem,
} from "./rotary_problem.ts";

/**
 * The gradient of a rotary embedding that a plan is made for: the options of the forward problem,
 * with dOutput in the place of x and dX in that of the output.
 */
export interface RotaryBackwardProblem
  extends Omit<RotaryProblem, "x" | "output" | "inPlace" | "conjugate" | "label"> {
  /** [B, H, M, D] f32, f16 or bf16: the gradient of the output. */
  readonly dOutput: TensorSpec;
  /** [B, H, M, D] f32, f16 or bf16. Default: dense, the dtype of dOutput. */
  readonly dX?: TensorSpec;
  /** The result takes the place of dOutput, and there is no dX. Default false. */
  readonly inPlace?: boolean;
  /** Whether the forward problem turned the other way. Default false. */
  readonly conjugate?: boolean;
  /** Name of the plan's GPU objects in errors and captures. Default `"rotaryBackward"`. */
  readonly label?: string;
}

const { x: _x, output: _output, ...SHARED } = ROTARY_PROBLEM;
/** The names of all members of a problem. */
const ROTARY_BACKWARD_PROBLEM: OptionNames<RotaryBackwardProblem> = {
  ...SHARED,
  dOutput: "any",
  dX: "any",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface RotaryBackwardBindings extends Omit<RotaryBindings, "x" | "output"> {
  readonly dOutput?: Tensor;
  /** Needed unless the plan works in place. */
  readonly dX?: Tensor;
}

/** A compiled gradient of a rotary embedding. */
export type RotaryBackwardPlan = Plan<RotaryBackwardBindings>;

/**
 * Compiles the gradient of {@link planRotary}: the gradient of the output, turned back. A turn of a
 * pair is an orthogonal matrix, but for the attention factor f, which stays:
 *
 * ```
 * (da, db) -> f (da cos t + db sin t, db cos t - da sin t)
 * ```
 *
 * All options are those of the forward problem: positions, frequencies and their scaling, sections,
 * and cos and sin of the caller's, which have no gradient. `conjugate` says that the forward
 * problem turned the other way.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const plan = await planRotaryBackward(device, { dOutput, base: 500_000, inPlace: true });
 * plan.encode(encoder);
 */
export function planRotaryBackward(
  device: GPUDevice,
  problem: RotaryBackwardProblem,
): Promise<RotaryBackwardPlan> {
  return ROTARY_BACKWARD.plan(device, problem);
}

/** What the tensors of the forward problem are called here. */
const NAMES: Readonly<Record<string, string>> = { x: "dOutput", output: "dX" };
const named = (name: string) => NAMES[name] ?? name;

const ROTARY_BACKWARD = operation<
  RotaryBackwardProblem,
  RotaryBackwardBindings,
  ResolvedRotaryProblem,
  { readonly dX?: FloatTensor }
>({
  name: "rotaryBackward",
  problem: ROTARY_BACKWARD_PROBLEM,
  resolve: (problem, caller) => resolveRotaryProblem(turnedBack(problem), caller, FORWARD),
  tensors: ({ add, ...into }, resolved, problem, caller) =>
    rotaryTensors(
      { ...into, add: (name, ...more) => add(named(name), ...more) },
      resolved,
      turnedBack(problem),
      caller,
    ),
  kernel(resolved, caller: Caller, operands): Stage {
    const stage = rotaryStage(resolved, caller, operands);
    const names = Object.entries(stage.names).map(([binding, name]) => [binding, named(name)]);
    return { ...stage, names: Object.fromEntries(names) };
  },
  results: ({ inPlace, output, layout }) => (inPlace ? {} : { dX: reorder(output, layout) }),
});
const FORWARD = { x: "dOutput", output: "dX" };

/** The forward problem that turns dOutput back. */
function turnedBack({
  dOutput,
  dX,
  conjugate = false,
  ...shared
}: Taken<RotaryBackwardProblem>): Taken<RotaryProblem> {
  const output = dX === undefined ? {} : { output: dX };
  return { ...shared, ...output, x: dOutput, conjugate: !conjugate };
}

/** Options of {@link rotaryBackward}: those of a problem, with tensors in place of specs. */
export interface RotaryBackwardOptions
  extends Omit<RotaryBackwardProblem, "dOutput" | "dX" | "cos" | "sin">,
    RunOptions {
  /**
   * Where the gradient goes. Default: a new dense tensor of the dtype of dOutput, which is the
   * caller's to destroy.
   */
  readonly dX?: Tensor;
  /** cos that the forward call was given: [P, R / 2] or [B, M, R / 2]. */
  readonly cos?: Tensor;
  /** sin that the forward call was given, like `cos`. Needed with it. */
  readonly sin?: Tensor;
}

/** The names of the options. */
const ROTARY_BACKWARD_OPTIONS = optionsBeside(ROTARY_BACKWARD_PROBLEM, "dOutput");

/**
 * The gradient of {@link rotary}, with its options. See {@link planRotaryBackward} for the formula.
 *
 * Resolves once the GPU has accepted the work; `dX.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param dOutput [B, H, M, D] f32, f16 or bf16, the gradient of the output
 * @returns `{ dX }` [B, H, M, D]; dOutput itself with `inPlace`
 *
 * @example
 * const { dX } = await rotaryBackward(dOutput, { base: 500_000, positionOffset: 100 });
 */
export async function rotaryBackward(
  dOutput: Tensor,
  asked: RotaryBackwardOptions = {},
): Promise<{ readonly dX: FloatTensor }> {
  const name = "rotaryBackward";
  const options = await readOptions(name, asked, ROTARY_BACKWARD_OPTIONS);
  checkTensors(options.label ?? name, { dOutput });
  const problem = { ...options, dOutput };
  const results = await ROTARY_BACKWARD.run({ device: dOutput.device, name, problem, options });
  return { dX: dOutput as FloatTensor, ...results };
}
