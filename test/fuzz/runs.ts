// How the problems of each suite of `npm run fuzz` are run: on a device, against the float64 reference. Throws what is off.

import { runCase } from "../support/cases.ts";

export const RUNS = { forward: runCase } as const;

export type SuiteName = keyof typeof RUNS;
