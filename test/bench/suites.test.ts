// What suites count, and what they let a software adapter do.

import { describe, expect, it } from "vitest";
import { type Dims, flopsOf } from "../../bench/cost.ts";
import { SUITES } from "../../bench/suites.ts";

const dims = (problem: Partial<Dims>): Dims => ({
  B: 1,
  H: 3,
  Hkv: 3,
  M: 5,
  N: 9,
  D: 4,
  Dv: 8,
  causal: false,
  ...problem,
});

describe("operations", () => {
  it.each([
    ["all keys", dims({}), 5 * 9],
    ["causal", dims({ causal: true }), 5 + 6 + 7 + 8 + 9],
    ["causal, more queries than keys", dims({ M: 9, N: 5, causal: true }), 1 + 2 + 3 + 4 + 5],
    ["a window before the query", dims({ causal: true, window: 2 }), 5 * 3],
    [
      "a window that reaches the first key",
      dims({ M: 9, causal: true, window: 6 }),
      1 + 2 + 3 + 4 + 5 + 6 + 7 + 7 + 7,
    ],
    ["a window with all keys after it", dims({ window: 2 }), 7 + 6 + 5 + 4 + 3],
    [
      "lengths of entries",
      dims({ B: 2, causal: true, kvLengths: [9, 5] }),
      35 + (1 + 2 + 3 + 4 + 5),
    ],
  ])("of %s are those of the pairs that are seen", (_, problem, pairs) => {
    expect(flopsOf(problem)).toBe(2 * (4 + 8) * 3 * pairs);
  });
});

describe("suite scale", () => {
  it.each([true, false])("goes from 128 to 65,536 tokens (software adapter: %s)", (software) => {
    const lengths = SUITES.scale(software).map((item) => item.dims.N);
    expect([Math.min(...lengths), Math.max(...lengths)]).toEqual([128, 65536]);
    for (const { dims } of SUITES.scale(software)) expect(dims.M).toBe(dims.N);
  });
  it("asks a software adapter for no more in a round than it can do in half a minute", () => {
    const work = SUITES.scale(true).reduce((sum, item) => sum + flopsOf(item.dims), 0);
    expect(work).toBeLessThan(5e10);
  });
});
