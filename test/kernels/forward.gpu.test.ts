// The forward kernel against the float64 reference, over the shapes at which tiled kernels break.

import { describe, it } from "vitest";
import { type Case, runCase, title } from "../support/cases.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

const run = (problem: Case) => async () => runCase(await testDevice(), problem);
const all = (problems: readonly Case[]) => {
  for (const problem of problems) it(title(problem), run(problem));
};

// Lengths around the tiles (64 or 32 rows, 32 keys), primes, and M != N both ways.
const LENGTHS: readonly (readonly [M: number, N: number])[] = [
  [1, 1],
  [1, 65],
  [31, 33],
  [32, 32],
  [33, 31],
  [63, 64],
  [64, 63],
  [65, 1],
  [97, 61],
  [61, 131],
  [5, 509],
];

describe("lengths", () => {
  all(LENGTHS.map(([M, N]) => ({ H: 2, M, N, D: 64 })));
});

describe("causal", () => {
  all(LENGTHS.map(([M, N]) => ({ H: 2, M, N, D: 64, causal: true })));
  all([
    { M: 40, N: 70, D: 64, causal: "top-left" },
    { M: 70, N: 40, D: 64, causal: "top-left" },
    { M: 70, N: 100, D: 64, causal: true, queryOffset: 17 },
    { M: 70, N: 100, D: 64, causal: true, queryOffset: -33 },
    { M: 70, N: 100, D: 64, causal: true, queryOffset: 1000 },
    { B: 3, M: 66, N: 90, D: 64, causal: true, queryOffset: [-70, 0, 24] },
  ]);
});
