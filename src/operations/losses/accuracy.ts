// How many rows of logits have their largest element at their class: the plan, and the one-liner on
// top of it.

import { check } from "../../errors.ts";
import { type OptionNames, readOptions } from "../../given.ts";
import { resolveSpec, type Tensor } from "../../gpu/tensor.ts";
import { argmaxSpecialisation } from "../../kernels/losses/argmax.ts";
import { rowKernel, rowWorkgroups } from "../../kernels/rows.ts";
import { type Caller, operation, optionsBeside, type Stage } from "../../plan/operation.ts";
import type { Plan } from "../../plan/plan.ts";
import { checkTensors, type RunOptions } from "../../plan/run.ts";
import { bindingBase, checkedSpec, expectShape, type ResolvedSpec } from "../../plan/specs.ts";
import type { TensorSpec } from "../../types.ts";
import { alongRows, denseRowNumbers, foldRows, lanesOf, layRows, rowNumbers } from "../row_axes.ts";
import { type CrossEntropyInputs, resolveClasses } from "./cross_entropy_problem.ts";
import { lossSumStages, ownPartialSums } from "./reduction.ts";

/** What a plan is made for. Shapes and strides are fixed by the plan; memory is given at encode. */
export interface AccuracyProblem
  extends Pick<CrossEntropyInputs, "logits" | "target" | "ignoreIndex"> {
  /** u32 [2], whose two numbers lie side by side. */
  readonly counts?: TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"accuracy"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
const ACCURACY_PROBLEM: OptionNames<AccuracyProblem> = {
  logits: "any",
  target: "any",
  ignoreIndex: "number",
  counts: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface AccuracyBindings {
  readonly logits?: Tensor;
  readonly target?: Tensor;
  readonly counts?: Tensor;
}

/** A compiled accuracy. */
export type AccuracyPlan = Plan<AccuracyBindings>;

/**
 * Compiles the accuracy of logits:
 *
 * ```
 * counts[0] = how many rows have argmax(logits[r]) = target[r],   of the rows that count
 * counts[1] = how many rows count, their target not being ignoreIndex
 * ```
 *
 * The accuracy is counts[0] / counts[1]; counts of batches may be added up first. The largest
 * element is found as {@link planArgmax} does it: the first one of several.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const target = { shape: [1024], dtype: "i32" } as const;
 * const plan = await planAccuracy(device, { logits: { shape: [1024, 10] }, target });
 * plan.encode(pass, { logits, target: classes, counts });
 */
export function planAccuracy(device: GPUDevice, problem: AccuracyProblem): Promise<AccuracyPlan> {
  return ACCURACY.plan(device, problem);
}

interface ResolvedAccuracy {
  readonly logits: ResolvedSpec;
  readonly target: ResolvedSpec;
  readonly ignoreIndex: number;
  readonly counts: ResolvedSpec;
}

const rowCount = ({ shape }: ResolvedSpec) => shape.reduce((product, size) => product * size, 1);

const ACCURACY = operation<
  AccuracyProblem,
  AccuracyBindings,
  ResolvedAccuracy,
  { readonly counts: Tensor<"u32"> }
>({
  name: "accuracy",
  problem: ACCURACY_PROBLEM,
  resolve(problem, { label }) {
    const counts = problem.counts
      ? checkedSpec(label, "counts", problem.counts, ["u32"])
      : resolveSpec("counts", { shape: [2], dtype: "u32" });
    expectShape(label, "counts", counts, [2]);
    check(
      counts.strides[0] === 1,
      "argument",
      () => `${label}: the two numbers of counts must lie side by side.`,
    );
    return { ...resolveClasses(label, problem), counts };
  },
  tensors({ add, own }, { logits, target, counts }, problem) {
    add("counts", counts, problem.counts, true);
    add("logits", logits, problem.logits);
    add("target", target, problem.target);
    const rows = rowCount(target);
    // The plan's names: what is predicted is its workspace, sums of workgroups its blocks.
    own("workspace", [rows], { dtype: "i32" });
    ownPartialSums(own, Math.ceil(rows / 4));
  },
  kernel,
  results: ({ counts }) => ({ counts }),
});

function kernel(
  { logits, target, ignoreIndex, counts }: ResolvedAccuracy,
  { label, device }: Caller,
): Stage[] {
  const { specs, rows, width } = foldRows<"o" | "index">(
    label,
    { o: logits, index: alongRows(label, "target", target, logits.shape) },
    1,
    { o: "logits", index: "target" },
  );
  const laid = layRows(
    device,
    { specs: { source: specs.o }, rows, width },
    {
      ignored: ignoreIndex,
      ...rowNumbers(device, "index", specs.index as ResolvedSpec),
      ...denseRowNumbers("result", specs.o.shape),
    },
  );
  const shared = lanesOf(device, { specs, rows, width });
  const names = {
    source: "logits",
    largest: "workspace",
    predicted: "workspace",
    indices: "target",
  };
  const found: Stage = {
    source: rowKernel("row_argmax", argmaxSpecialisation(laid.accesses, shared)),
    names,
    params: laid.params,
    workgroups: rowWorkgroups(rows, shared.lanes),
  };
  const sums = lossSumStages({
    terms: { of: "hits" },
    loss: true,
    counted: true,
    counts: true,
    items: Math.ceil(rows / 4),
    values: laid.params.values,
    names,
    into: "counts",
    base: bindingBase(device, counts),
  });
  return [found, ...sums];
}

/** Options of {@link accuracy}. */
export interface AccuracyOptions extends RunOptions {
  /** A target that does not count. Default -100. */
  readonly ignoreIndex?: number;
  /** Where the counts go. Default: a new u32 tensor, which is the caller's to destroy. */
  readonly counts?: Tensor;
  /** Name in errors and captures. */
  readonly label?: string;
}

/** The names of the options. */
const ACCURACY_OPTIONS = optionsBeside(ACCURACY_PROBLEM, "logits", "target");

/**
 * Counts the rows of logits whose largest element is at their class. See {@link planAccuracy} for
 * the rules.
 *
 * Resolves once the GPU has accepted the work; `counts.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param logits [..., C] f32, f16 or bf16
 * @param target i32 or u32 [...]: the class of each row
 * @returns `{ counts }`, u32 [2]: the rows that are right, and the rows that count
 *
 * @example
 * const { counts } = await accuracy(logits, target);
 * const [right, all] = await counts.read();
 */
export async function accuracy(
  logits: Tensor,
  target: Tensor,
  given: AccuracyOptions = {},
): Promise<{ readonly counts: Tensor<"u32"> }> {
  const name = "accuracy";
  const options = await readOptions(name, given, ACCURACY_OPTIONS);
  checkTensors(options.label ?? name, { logits, target }, { counts: options.counts });
  const problem = { ...options, logits, target };
  return ACCURACY.run({ device: logits.device, name, problem, options });
}
