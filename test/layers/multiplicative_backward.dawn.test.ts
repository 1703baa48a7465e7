// The gradients of multiplicative attention against the float64 reference.

import { describe, expect, it } from "vitest";
import { planMultiplicativeAttentionBackward } from "../../src/index.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { type MultiplicativeCase, runMultiplicativeCase } from "../support/multiplicative_cases.ts";

failOnGpuErrors();

const SIZES = { B: 2, H: 2, M: 20, N: 37, D: 8, K: 12, Dv: 8, causal: true } as const;
const SMALL = { spread: 0.3, gradientSpread: 1 / 0.3 } as const;
const CASES: readonly (readonly [name: string, given: MultiplicativeCase])[] = [
  ["one matrix for all heads", { ...SIZES, ...SMALL }],
  [
    "a matrix for each head",
    { ...SIZES, ...SMALL, layout: "bmhd", perHead: true, kvLengths: [37, 9] },
  ],
  ["one key, so that gradients of queries are 0", { ...SIZES, ...SMALL, M: 7, N: 1 }],
  ["large gradients of small rows", { ...SIZES, spread: 1e-4, gradientSpread: 1e4 }],
];

describe("gradients of multiplicative attention", () => {
  it.each(CASES)("are right with %s", async (_, problem) => {
    await runMultiplicativeCase(await testDevice(), problem);
  });

  it("refuse weights of another shape", async () => {
    const device = await testDevice();
    const problem = {
      q: { shape: [1, 2, 5, 8] },
      k: { shape: [1, 2, 7, 12] },
      v: { shape: [1, 2, 7, 8] },
    };
    const plan = (options: object) => () =>
      planMultiplicativeAttentionBackward(device, {
        ...problem,
        weight: { shape: [8, 12] },
        ...options,
      });
    await expectError(
      plan({ weight: { shape: [12, 8] } }),
      "argument",
      "multiplicativeAttentionBackward: weight must be [Dq, Dk] = [8, 12] or [H, Dq, Dk] = [2, 8, 12], got [12, 8].",
    );
    await expectError(
      plan({ dWeight: { shape: [2, 8, 12] } }),
      "argument",
      "multiplicativeAttentionBackward: dWeight must be [8, 12], got [2, 8, 12].",
    );
    expect((await plan({})()).workspaceBytes).toBeGreaterThanOrEqual(2 * 4 * 2 * 5 * 12);
  });
});
