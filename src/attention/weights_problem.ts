// The problems of weights and best keys, for chosen heads and queries: their checks, and the params
// of their kernels.

import { check, show } from "../errors.ts";
import {
  AttentionFunction,
  checkCaptureNames,
  functionsOf,
  type ProbabilityFunction,
} from "../functions/attention_function.ts";
import type { Numbers, OptionNames, Taken } from "../given.ts";
import { resolveSpec } from "../gpu/tensor.ts";
import type { Params } from "../kernels/params.ts";
import { ALL, MOST_KEYS, STAGES } from "../kernels/weights.ts";
import { checkedSpec, expectApart, expectShape, type ResolvedSpec } from "../plan/specs.ts";
import type { PresentOption, Table } from "../scores/descriptor.ts";
import type { Extension } from "../scores/resolve.ts";
import type { TensorSpec } from "../types.ts";
import { type Cached, SCORE_PROBLEM, type ScoreProblem } from "./problem.ts";
import { resolveScores } from "./resolve.ts";
import type { ResolvedScores } from "./resolved.ts";

/**
 * The stage at which scores are taken. `"raw"` is scale * q.k of every used key, masked or not, and
 * 0 past the lengths. `"capped"` is that after the softcap. `"scores"` are taken after score
 * function, biases and masks, and are -Infinity for keys that the query does not see.
 * `"probabilities"` are taken after the softmax, whose denominator includes sinks, and are 0 for
 * such keys.
 */
export type WeightsStage = "raw" | "capped" | "scores" | "probabilities";

/** The heads and queries whose scores are asked for. */
export interface Chosen {
  /**
   * Query heads, in the order of the result. Default all. Another list of the same length compiles
   * nothing.
   */
  readonly heads?: Numbers;
  /**
   * Queries, in the order of the result; in packed sequences they are counted in each entry.
   * Default all. Another list of the same length compiles nothing.
   */
  readonly rows?: Numbers;
}

/**
 * Scores or probabilities to write to memory. Dropout is ignored: weights are those before dropout.
 */
export interface WeightsProblem extends ScoreProblem, Chosen {
  /** Default `"probabilities"`. */
  readonly stage?: WeightsStage;
  /** The mean of the probabilities over the chosen heads, in place of each. Default false. */
  readonly meanOverHeads?: boolean;
  /** WGSL that changes the probabilities. Default none. */
  readonly probabilityFunction?: ProbabilityFunction;
  /**
   * The log-sum-exp that attention computed for the same options, [B, H, M] f32. It saves half of
   * the work for probabilities, and is not read at other stages. Default: it is computed again.
   */
  readonly lse?: TensorSpec;
  /**
   * [B, heads, rows, N] f32, or [B, rows, N] for the mean; N is maxSeqlenKv for packed sequences.
   * Default: dense.
   */
  readonly output?: TensorSpec;
}

/** Keys to find. Dropout is ignored. */
export interface TopKeysProblem extends ScoreProblem, Chosen {
  /** Keys of each row, 1 to 64. */
  readonly count: number;
}

/** The names of all members of both problems. */
const CHOSEN: OptionNames<Chosen> = { heads: "any", rows: "any" };
export const WEIGHTS_PROBLEM: OptionNames<WeightsProblem | Cached<WeightsProblem>> = {
  ...SCORE_PROBLEM,
  ...CHOSEN,
  stage: "string",
  meanOverHeads: "boolean",
  probabilityFunction: "any",
  lse: "any",
  output: "any",
};
export const TOP_KEYS_PROBLEM: OptionNames<TopKeysProblem | Cached<TopKeysProblem>> = {
  ...SCORE_PROBLEM,
  ...CHOSEN,
  count: "number",
};

/** Problems after they were read. */
export type TakenWeights = Taken<WeightsProblem | Cached<WeightsProblem>>;
export type TakenTopKeys = Taken<TopKeysProblem | Cached<TopKeysProblem>>;

/** A checked request: the scores, and the lists of heads and rows as tables and params. */
export interface ResolvedRequest {
  readonly scores: ResolvedScores;
  readonly params: Partial<Params>;
  readonly chosenHeads: number;
  readonly chosenRows: number;
}

export interface ResolvedWeights extends ResolvedRequest {
  readonly stage: WeightsStage;
  readonly mean: boolean;
  /** Undefined if the stage does not use it. */
  readonly lse: ResolvedSpec | undefined;
  readonly output: ResolvedSpec;
}

export function resolveWeights(
  problem: TakenWeights,
  extension: Extension | undefined,
): ResolvedWeights {
  const {
    label = "attentionWeights",
    stage = "probabilities",
    meanOverHeads: mean = false,
  } = problem;
  check(
    STAGES.includes(stage),
    "argument",
    () =>
      `${label}: stage must be ${STAGES.map((name) => `"${name}"`).join(", ")}, got ${show(stage)}.`,
  );
  check(
    !mean || stage === "probabilities",
    "argument",
    () =>
      `${label}: meanOverHeads is a mean of probabilities; it can't be combined with stage "${stage}".`,
  );
  const { probabilityFunction } = problem;
  check(
    probabilityFunction === undefined ||
      (probabilityFunction instanceof AttentionFunction &&
        probabilityFunction.kind === "probability"),
    "argument",
    () =>
      `${label}: probabilityFunction must come from probabilityFunction(), got ${show(probabilityFunction)}.`,
  );
  check(
    probabilityFunction === undefined || stage === "probabilities",
    "argument",
    () =>
      `${label}: probabilityFunction changes probabilities; it can't be combined with stage "${stage}".`,
  );
  const request = resolveRequest(label, problem, extension, probabilityFunction);
  checkCaptureNames(label, functionsOf(problem));
  const { scores, chosenHeads, chosenRows } = request;
  const { batch, seqKv, lseShape } = scores;
  const shape = [batch, ...(mean ? [] : [chosenHeads]), chosenRows, seqKv];
  const output =
    problem.output !== undefined
      ? checkedSpec(label, "output", problem.output)
      : resolveSpec(label, { shape });
  expectShape(label, "output", output, shape, `[B, ${mean ? "" : "heads, "}rows, N]`);
  expectApart(label, "output", output);
  const lse =
    problem.lse !== undefined && stage === "probabilities"
      ? checkedSpec(label, "lse", problem.lse)
      : undefined;
  if (lse) expectShape(label, "lse", lse, lseShape, "[B, H, M]");
  const [b, h, m, n] = mean ? [output.strides[0], 0, ...output.strides.slice(1)] : output.strides;
  const params: Partial<Params> = {
    ...request.params,
    stage: STAGES.indexOf(stage),
    grid_heads: mean ? 1 : chosenHeads,
    o_stride_b: b,
    o_stride_h: h,
    o_stride_m: m,
    o_stride_d: n,
  };
  return { ...request, params, stage, mean, lse, output };
}

export interface ResolvedTopKeys extends ResolvedRequest {
  /** [B, heads, rows, count] of both results. */
  readonly shape: readonly number[];
}

export function resolveTopKeys(
  problem: TakenTopKeys,
  extension: Extension | undefined,
): ResolvedTopKeys {
  const { label = "topKKeys", count } = problem;
  check(
    Number.isInteger(count) && count >= 1 && count <= MOST_KEYS,
    "argument",
    () =>
      `${label}: the number of keys must be a whole number from 1 to ${MOST_KEYS}, got ${count}.`,
  );
  const request = resolveRequest(label, problem, extension);
  checkCaptureNames(label, functionsOf(problem));
  const { scores, chosenHeads, chosenRows } = request;
  const params = {
    ...request.params,
    stage: STAGES.indexOf("probabilities"),
    grid_heads: chosenHeads,
    best_keys: count,
  };
  return { ...request, params, shape: [scores.batch, chosenHeads, chosenRows, count] };
}

function resolveRequest(
  label: string,
  problem: TakenWeights | TakenTopKeys,
  extension: Extension | undefined,
  probabilityFunction?: ProbabilityFunction,
): ResolvedRequest {
  const scores = resolveScores(label, problem, false, extension);
  const heads = listOf(label, "heads", problem.heads, scores.heads);
  const rows = listOf(label, "rows", problem.rows, scores.seqQ);
  const tables: Table[] = [];
  if (heads) tables.push({ at: "heads_at", name: "heads", values: heads, dtype: "i32" });
  if (rows) tables.push({ at: "rows_at", name: "rows", values: rows, dtype: "i32" });
  const chosenHeads = heads?.length ?? scores.heads;
  const chosenRows = rows?.length ?? scores.seqQ;
  const params: Partial<Params> = {
    chosen_heads: chosenHeads,
    chosen_rows: chosenRows,
    ...(!heads && { heads_at: ALL }),
    ...(!rows && { rows_at: ALL }),
  };
  // Which weights dropout keeps is decided after the softmax, and does not concern the scores.
  const options = scores.options.filter(({ name }) => name !== "dropout");
  options.push({ name: "chosen", keeps: "scores", tables });
  if (probabilityFunction) options.push(probabilityOption(probabilityFunction));
  return {
    scores: { ...scores, options },
    params,
    chosenHeads,
    chosenRows,
  };
}

/** A function of probabilities, as the options of scores are described. */
const probabilityOption = (calls: ProbabilityFunction): PresentOption => ({
  name: "probabilityFunction",
  keeps: "scores",
  slots: { probability: calls.text },
  calls,
});

function listOf(label: string, name: string, list: readonly number[] | undefined, count: number) {
  check(
    list === undefined ||
      (Array.isArray(list) &&
        list.length > 0 &&
        list.every((n) => Number.isInteger(n) && n >= 0 && n < count)),
    "argument",
    () =>
      `${label}: ${name} must list whole numbers from 0 to ${count - 1}, at least one, got ${show(list)}.`,
  );
  return list;
}
