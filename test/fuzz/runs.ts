// How the problems of each suite of `npm run fuzz` are run: on a device, against the float64 reference. Throws what is off.

import { runHistory } from "../support/cache_history.ts";
import { runCase } from "../support/cases.ts";

export const RUNS = { forward: runCase, cache: runHistory } as const;

export type SuiteName = keyof typeof RUNS;
