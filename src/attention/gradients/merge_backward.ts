// The gradients of merged attention by its partial results: the plan, and the one-line call.

import { readOptions } from "../../given.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import {
  MERGE_BACKWARD_PARAMS,
  MERGE_BACKWARD_ROW_TILE,
  mergeBackwardKernel,
} from "../../kernels/gradients/merge.ts";
import { operation, optionsBeside, type Stage } from "../../plan/operation.ts";
import type { Plan } from "../../plan/plan.ts";
import { checkTensors, type RunOptions, runOnce } from "../../plan/run.ts";
import {
  bitsOfEmpty,
  type MergeOperand,
  mergeHooks,
  type PartialAttention,
  takePartials,
} from "../merge_problem.ts";
import {
  MERGE_BACKWARD_PROBLEM,
  type MergeBackwardBindings,
  type MergeBackwardProblem,
  type PartialGradients,
  type ResolvedMergeBackward,
  resolveMergeBackward,
  takeGradients,
} from "./merge_problem.ts";

/** Compiled gradients of a merge. */
export type MergeBackwardPlan = Plan<MergeBackwardBindings>;

/**
 * Compiles the gradients of a merge (see {@link planMerge}) by its partial results:
 *
 * ```
 * p_i = exp(LSE_i - LSE)
 * dOutput_i = p_i dOutput,   dLse_i = p_i (dOutput . (O_i - O) + dLse)
 * ```
 *
 * Source: the derivative of the formula of {@link planMerge}. The weights p_i are found again from
 * the partial LSEs, so that they are right for LSEs of any magnitude; the merged LSE is not needed.
 * A partial without a key in a row has gradients of 0 there, and is not read; so has a row without
 * a key in any partial, whose dOutput and dLse are not read either. A row that an LSE of NaN or
 * +Infinity makes NaN has gradients that are NaN. Sums are f32 in one order: the same inputs on the
 * same device give the same bits.
 *
 * One kernel serves every problem, with two dispatches for each partial. Its scratch memory is 8
 * bytes a row of [B, H, M]. The gradients need buffers that hold nothing that is read.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const partial = { output: { shape: [1, 8, 128, 64] }, lse: { shape: [1, 8, 128] } };
 * const backward = await planMergeBackward(device, { partials: [partial, partial] });
 * backward.encode(encoder, { partials, output, dOutput, dPartials });
 */
export function planMergeBackward(
  device: GPUDevice,
  problem: MergeBackwardProblem,
): Promise<MergeBackwardPlan> {
  return MERGE_BACKWARD.plan(device, problem);
}

const NAME = "mergeAttentionBackward";

const MERGE_BACKWARD = operation<
  MergeBackwardProblem,
  MergeBackwardBindings,
  ResolvedMergeBackward,
  Record<never, never>
>({
  name: NAME,
  problem: MERGE_BACKWARD_PROBLEM,
  resolve: resolveMergeBackward,
  tensors({ operands, own }, { operands: given, rows }) {
    for (const operand of given) operands.set(operand.name, operand);
    own("workspace", [2 * Math.max(1, rows)], {}, true);
  },
  kernel: stages,
  results: () => ({}),
  hooks: ({ operands, partials }, { label }) =>
    mergeHooks(label, operands, { partials, names: ["partials", "dPartials"] }),
});

/** First the statistics of the rows, partial by partial, and then the gradients of each. */
function stages(merge: ResolvedMergeBackward): Stage[] {
  const { operands, partials, heads, seqQ, vDim, rows, infinityIsEmpty } = merge;
  const named = new Map(operands.map((operand) => [operand.name, operand]));
  const find = (name: string) => named.get(name) as MergeOperand<MergeBackwardBindings>;
  return [0, 1].flatMap((stage) =>
    Array.from({ length: partials }, (_, index): Stage => {
      const part_lse = find(`partials[${index}].lse`);
      const bound = {
        o: find("output"),
        d_o: find("dOutput"),
        d_lse: named.get("dLse") ?? part_lse,
        part: find(`partials[${index}].output`),
        part_lse,
        d_part: find(`dPartials[${index}].dOutput`),
        d_part_lse: find(`dPartials[${index}].dLse`),
      };
      const places = Object.entries(bound).flatMap(([name, { strides, base }]) => [
        [`${name}_strides`, strides],
        [`${name}_base`, base],
      ]);
      const values = {
        ...Object.fromEntries(places),
        n_heads: heads,
        seq_q: seqQ,
        v_dim: vDim,
        rows,
        stage,
        first: Number(index === 0),
        has_d_lse: Number(named.has("dLse")),
        empty: bitsOfEmpty(infinityIsEmpty),
      };
      const names = Object.entries(bound).map(([binding, { name }]) => [binding, name]);
      return {
        source: mergeBackwardKernel(),
        names: Object.fromEntries(names),
        params: { struct: MERGE_BACKWARD_PARAMS, values },
        workgroups: Math.max(1, Math.ceil(rows / MERGE_BACKWARD_ROW_TILE)),
        boundLike: stage === 1 ? index : undefined,
      };
    }),
  );
}

/** Options of {@link mergeAttentionBackward}. */
export interface MergeBackwardOptions
  extends RunOptions,
    Pick<MergeBackwardProblem, "infinityIsEmpty" | "layout" | "label"> {
  /** [B, H, M, Dv] f32: what the merge gave. */
  readonly output: Tensor;
  /** [B, H, M, Dv] f32: the gradient of the merged output. */
  readonly dOutput: Tensor;
  /** [B, H, M] f32: the gradient of the merged log-sum-exp. Default: zeros. */
  readonly dLse?: Tensor;
  /**
   * Where the gradients go, one of `{ dOutput, dLse }` for each partial. Default: new tensors, the
   * caller's to destroy.
   */
  readonly dPartials?: readonly PartialGradients<Tensor>[];
}

/** The names of the options. */
const MERGE_BACKWARD_OPTIONS = optionsBeside(MERGE_BACKWARD_PROBLEM, "partials");

/** The gradients of partial results, in the order of these. */
export interface MergeGradients {
  readonly dPartials: readonly Required<PartialGradients<Tensor<"f32">>>[];
}

/**
 * The gradients of merged attention by its partial results. See {@link planMergeBackward} for the
 * formula and the rules. {@link attentionBackward} takes them on: `dOutput` and `dLse` of a partial
 * are those of attention over its keys.
 *
 * Resolves once the GPU has accepted the work; `read()` of a gradient waits for its values.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param partials The results `{ output [B, H, M, Dv], lse [B, H, M] }` that were merged
 *
 * @example
 * const { output } = await mergeAttention(partials);
 * const { dPartials } = await mergeAttentionBackward(partials, { output, dOutput });
 * const { dQ } = await attentionBackward(q, k, v, { ...partials[0], ...dPartials[0] });
 */
export async function mergeAttentionBackward(
  partials: readonly PartialAttention[],
  asked: MergeBackwardOptions,
): Promise<MergeGradients> {
  const options = await readOptions(NAME, asked, MERGE_BACKWARD_OPTIONS);
  const { label = NAME, output, dOutput, dLse } = options;
  const parts = takePartials(label, partials);
  const dPartials = takeGradients<Tensor>(
    label,
    options.dPartials as readonly PartialGradients<Tensor>[] | undefined,
    parts.length,
  );
  for (const [index, { output, lse }] of parts.entries())
    checkTensors(label, { [`partials[${index}].output`]: output, [`partials[${index}].lse`]: lse });
  checkTensors(label, { output, dOutput }, { dLse });
  for (const [index, given] of dPartials.entries())
    checkTensors(
      label,
      {},
      {
        [`dPartials[${index}].dOutput`]: given.dOutput,
        [`dPartials[${index}].dLse`]: given.dLse,
      },
    );
  const { device } = parts[0].output;
  const problem = { ...options, partials: parts, dPartials };
  const prepared = await MERGE_BACKWARD.prepare(device, problem, NAME);
  const results = await runOnce<MergeBackwardBindings>(device, label, prepared, options, (make) => {
    const { operands } = prepared.resolved;
    const made = (name: string, given: Tensor | undefined) => {
      const spec = operands.find((operand) => operand.name === name)?.spec;
      return given ?? make(name, spec?.shape ?? []);
    };
    return {
      dPartials: dPartials.map((given, index) => ({
        dOutput: made(`dPartials[${index}].dOutput`, given.dOutput),
        dLse: made(`dPartials[${index}].dLse`, given.dLse),
      })),
    };
  });
  return results as MergeGradients;
}
