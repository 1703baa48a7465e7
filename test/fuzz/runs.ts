// Runs the problems of each suite of `npm run fuzz` on a device, against the float64 reference, and
// throws if a result is off.

import { runHistory } from "../support/cache_history.ts";
import { runCase } from "../support/cases.ts";
import { runLinearCase } from "../support/linear.ts";
import { runMultiHead } from "../support/multi_head.ts";
import { type RowCase, runRowCase } from "../support/row_cases.ts";
import { runScoreCase, type ScoreCase } from "../support/score_cases.ts";

const isOfScores = (problem: RowCase | ScoreCase): problem is ScoreCase =>
  ["mergeAttention", "attentionWeights", "topKKeys"].includes(problem.op);

export const RUNS = {
  forward: runCase,
  linear: runLinearCase,
  mha: runMultiHead,
  additive: runCase,
  cache: runHistory,
  rows: (device: GPUDevice, problem: RowCase | ScoreCase) =>
    isOfScores(problem) ? runScoreCase(device, problem) : runRowCase(device, problem),
} as const;

export type SuiteName = keyof typeof RUNS;
