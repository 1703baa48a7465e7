// Runs the problems of each suite of `npm run fuzz` on a device, against the float64 reference, and
// throws if a result is off.

import { type BackwardCase, runBackwardCase } from "../support/backward_cases.ts";
import { runHistory } from "../support/cache_history.ts";
import { runCase } from "../support/cases.ts";
import { runLinearCase } from "../support/linear.ts";
import { type LinearBackwardCase, runLinearBackwardCase } from "../support/linear_backward.ts";
import { runMultiHead } from "../support/multi_head.ts";
import { type MultiplicativeCase, runMultiplicativeCase } from "../support/multiplicative_cases.ts";
import { type RowCase, runRowCase } from "../support/row_cases.ts";
import { type RowGradientCase, runRowGradientCase } from "../support/row_gradient_cases.ts";
import { runScoreCase, type ScoreCase } from "../support/score_cases.ts";

const isOfScores = (problem: RowCase | ScoreCase): problem is ScoreCase =>
  ["mergeAttention", "attentionWeights", "topKKeys"].includes(problem.op);

type Of<Op extends string, Problem> = Problem & { readonly op: Op };
/** Problems of attention's gradients name no operation. */
export type GradientCase =
  | (BackwardCase & { readonly op?: undefined })
  | Of<"linearAttentionBackward", LinearBackwardCase>
  | Of<"multiplicativeAttentionBackward", MultiplicativeCase>
  | RowGradientCase;

function runGradients(device: GPUDevice, problem: GradientCase): Promise<void> {
  if (problem.op === undefined) return runBackwardCase(device, problem);
  if (problem.op === "linearAttentionBackward") {
    const { op, ...rest } = problem;
    return runLinearBackwardCase(device, rest);
  }
  if (problem.op === "multiplicativeAttentionBackward")
    return runMultiplicativeCase(device, problem);
  return runRowGradientCase(device, problem);
}

export const RUNS = {
  forward: runCase,
  linear: runLinearCase,
  mha: runMultiHead,
  additive: runCase,
  backward: runGradients,
  cache: runHistory,
  rows: (device: GPUDevice, problem: RowCase | ScoreCase) =>
    isOfScores(problem) ? runScoreCase(device, problem) : runRowCase(device, problem),
} as const;

export type SuiteName = keyof typeof RUNS;
