// Additive attention on the GPU: the features of the forward kernel with other scores, against the reference.

import { describe, it } from "vitest";
import { type Case, runCase, title } from "../support/cases.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

const additive = { kind: "additive" } as const;

const CASES: readonly Case[] = [
  // One kernel: hostile lengths, values beyond the range of the fast terms.
  ...[
    [1, 1],
    [31, 33],
    [33, 97],
  ].map(([M, N]) => ({ M, N, D: 16, H: 2, similarity: additive })),
  { M: 33, N: 70, D: 16, H: 2, similarity: additive, spread: 30 },
];

describe("additive attention", () => {
  it.each(CASES.map((problem) => [title(problem), problem] as const))("%s", async (_, problem) => {
    await runCase(await testDevice(), problem);
  });
});
