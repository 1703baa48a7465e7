// Fixed histories of paged caches against the model of test/support/cache_history.ts, which fuzzing
// runs at random.

import { describe, it } from "vitest";
import { runHistory } from "../support/cache_history.ts";
import type { CacheCase } from "../support/cache_steps.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

const FLOATS = {
  ...({ place: "paged", variant: "8x32" } as const),
  entries: 4,
  Hkv: 2,
  G: 2,
  D: 8,
  maxTokens: 100,
  pages: 40,
  pageSize: 4,
};

describe("a paged cache", () => {
  it.each<[string, CacheCase]>([
    [
      "appends ragged batches over pages, and attends to them",
      {
        ...FLOATS,
        steps: [
          { append: [7, 0, 1, 4] },
          { append: [20, 20, 20, 20], poison: true },
          { attend: 3 },
          { append: [1, 1, 1, 1] },
          { append: [1, 1, 1, 1] },
          { attend: 1 },
          { append: [30, 0, 0, 3] },
          { attend: 30 },
        ],
      },
    ],
    [
      "forks, of which each goes its own way",
      {
        ...FLOATS,
        steps: [
          { append: [10] },
          { fork: [0, 1, 0] },
          { fork: [0, 2, 3] },
          { attend: 2 },
          { append: [2, 3, 1] },
          { attend: 4 },
          { free: 0 },
          { append: [5] },
          { attend: 4 },
        ],
      },
    ],
    [
      "gives pages of one entry to another while commands of before are not submitted",
      {
        ...FLOATS,
        pages: 6,
        steps: [
          { append: [20] },
          { attend: 2 },
          { free: 0 },
          { append: [0, 17] },
          { attend: 2 },
          { truncate: [1, 9] },
          { attend: 2 },
          { append: [9] },
          { attend: 1 },
          { append: [9] },
        ],
      },
    ],
    [
      "runs batches of some entries in any order",
      {
        ...FLOATS,
        steps: [
          { append: [5, 6], batch: [3, 1] },
          { append: [2, 2], batch: [1, 0] },
          { attend: 2, batch: [0, 3] },
          { attend: 2, batch: [1, 0] },
          { free: 1 },
          { append: [9, 1], batch: [2, 3] },
          { attend: 3, batch: [3, 2] },
          { attend: 3 },
        ],
      },
    ],
    [
      "keeps integers, normalised and rotated, in pages of one token",
      {
        ...FLOATS,
        dtype: "int8",
        pageSize: 1,
        pages: 90,
        qkNorm: true,
        rotary: {},
        queries: true,
        steps: [
          { append: [9, 0, 4], spread: 3 },
          { append: [1, 9, 0, 5], poison: true },
          { fork: [0, 1, 2] },
          { append: [1, 1, 0, 1] },
          { truncate: [2, 2] },
          { attend: 3 },
          { append: [1, 1, 1, 1], spread: 0 },
          { attend: 1 },
        ],
      },
    ],
  ])("%s", async (_, problem) => {
    await runHistory(await testDevice(), problem);
  });
});
