// Merging attention over disjoint sets of keys: the plan, and the one-liner on top of it.

import { check } from "../errors.ts";
import { Tensor } from "../gpu/tensor.ts";
import { MERGE_FOLD } from "../kernels/merge.ts";
import { takeOptions } from "../options.ts";
import { operation, optionsBeside } from "../plan/operation.ts";
import { Plan } from "../plan/plan.ts";
import type { RunOptions } from "../plan/run.ts";
import type { Layout } from "../types.ts";
import type { AttentionResult } from "./attention.ts";
import {
  MERGE_PROBLEM,
  type MergeBindings,
  type MergeProblem,
  mergeHooks,
  mergeStages,
  type PartialAttention,
  type ResolvedMerge,
  resolveMerge,
  takePartials,
} from "./merge_problem.ts";

/**
 * A compiled merge. Make one with {@link planMerge}; encode it as often as you like. Its scratch
 * memory is 4 bytes a row of [B, H, M], or 4 in all for two partials.
 */
export type MergePlan = Plan<MergeBindings>;
export const MergePlan = Plan;

/**
 * Compiles the merge of partial results: attention of the same queries over disjoint sets of keys
 * becomes attention over all of these keys, exactly.
 *
 * ```
 * m = max_i LSE_i,   w_i = exp(LSE_i - m)
 * O = sum_i w_i O_i / sum_i w_i,   LSE = m + ln sum_i w_i
 * ```
 *
 * Source: the reduction of FlashDecoding's split-KV. Weights and sums are f32. A partial without a
 * key in a row (LSE -Infinity) adds nothing to it, whatever its output holds; a row without a key
 * in any partial gets output 0 and LSE -Infinity. The same inputs in the same order on the same
 * device give the same bits. LSEs are natural logarithms, and finite otherwise.
 *
 * One kernel serves every problem; two partials take one dispatch, and each further partial takes
 * one more. `output` and `lse` need buffers that hold no partial.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const partial = { output: { shape: [1, 8, 128, 64] }, lse: { shape: [1, 8, 128] } };
 * const merge = await planMerge(device, { partials: [partial, partial] });
 */
export function planMerge(device: GPUDevice, problem: MergeProblem): Promise<MergePlan> {
  return MERGE.plan(device, problem);
}

const MERGE = operation<MergeProblem, MergeBindings, ResolvedMerge, Partial>({
  name: "mergeAttention",
  problem: MERGE_PROBLEM,
  resolve: resolveMerge,
  tensors({ operands, own }, { operands: given, partials, rows }) {
    for (const operand of given) operands.set(operand.name, operand);
    own("workspace", [partials > MERGE_FOLD ? Math.max(1, rows) : 1], {}, true);
  },
  kernel: mergeStages,
  results({ operands }) {
    const [output, lse] = operands.slice(-2);
    return { output: output.spec, lse: lse.spec };
  },
  hooks: ({ operands, partials }, { label }) =>
    mergeHooks(label, operands, { partials, names: ["partials"] }),
});

/** Options of {@link mergeAttention}. */
export interface MergeOptions extends RunOptions, Pick<MergeProblem, "infinityIsEmpty"> {
  /**
   * Where the output goes, in a buffer that holds no partial. Default: a new tensor, the caller's
   * to destroy.
   */
  readonly output?: Tensor;
  /**
   * Where the log-sum-exp goes, in a buffer that holds no partial. Default: a new tensor, the
   * caller's to destroy.
   */
  readonly lse?: Tensor;
  /** Axis order of all outputs. Default `"bhmd"`. */
  readonly layout?: Layout;
  /** Name of the GPU objects in errors and captures. Default `"mergeAttention"`. */
  readonly label?: string;
}

/** The names of the options. */
const MERGE_OPTIONS = optionsBeside(MERGE_PROBLEM, "partials");

type Partial = Required<Pick<AttentionResult, "output" | "lse">>;

/**
 * Merges attention of the same queries over disjoint sets of keys into attention over all of these
 * keys. See {@link planMerge} for the formula and the rules. The result can be merged again.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param partials One or more results `{ output [B, H, M, Dv], lse [B, H, M] }`, as `attention`
 *   gives them with the option `{ lse: true }`. They stay the caller's.
 *
 * @example
 * const ranges = [[0, 1000], [1000, 1500]];
 * const partials = await Promise.all(
 *   ranges.map(([a, b]) => attention(q, k.slice(2, a, b), v.slice(2, a, b), { lse: true })),
 * );
 * const { output, lse } = await mergeAttention(partials);
 */
export async function mergeAttention(
  partials: readonly PartialAttention[],
  asked: MergeOptions = {},
): Promise<Required<Pick<AttentionResult, "output" | "lse">>> {
  const options = takeOptions("mergeAttention", asked, MERGE_OPTIONS);
  const { label = "mergeAttention" } = options;
  const parts = takePartials(label, partials) as readonly Partial[];
  for (const [index, partial] of parts.entries()) {
    for (const name of ["output", "lse"] as const) {
      const what = `${label}: partials[${index}].${name}`;
      check(
        partial[name] instanceof Tensor,
        "argument",
        () => `${what} must be a Tensor; make one with tensor().`,
      );
    }
  }
  const { device } = parts[0].output;
  const problem = { ...options, partials: parts };
  return MERGE.run({ device, name: "mergeAttention", problem, options });
}
