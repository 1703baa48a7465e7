// How the problems of each suite of `npm run fuzz` are run: on a device, against the float64 reference. Throws what is off.

import { runHistory } from "../support/cache_history.ts";
import { runCase } from "../support/cases.ts";
import { runLinearCase } from "../support/linear.ts";
import { runMultiHead } from "../support/multi_head.ts";

export const RUNS = {
  forward: runCase,
  linear: runLinearCase,
  mha: runMultiHead,
  additive: runCase,
  cache: runHistory,
} as const;

export type SuiteName = keyof typeof RUNS;
