// The reference merge against numbers worked by hand, and against attention over all keys.

import { describe, expect, it } from "vitest";
import { attention, largest, mergeAttention, worstElement } from "../../src/reference/index.ts";
import { integers, normal } from "../../src/reference/random.ts";

const NONE = Number.NEGATIVE_INFINITY;

describe("reference mergeAttention", () => {
  it("weighs partials by exp(LSE)", () => {
    // Rows of two columns. Row 0: sums of exp of 1, 2 and 4, so weights 1/7, 2/7, 4/7. Row 1: of 3
    // and 1, and no key.
    const { output, lse } = mergeAttention([
      { output: [70, 7, 4, 8], lse: [0, Math.log(3)] },
      { output: [7, 14, 8, 0], lse: [Math.LN2, 0] },
      { output: [21, 0, Number.NaN, Number.NaN], lse: [Math.log(4), NONE] },
    ]);
    [24, 5, 5, 6].forEach((value, index) => {
      expect(output[index]).toBeCloseTo(value, 12);
    });
    expect(lse[0]).toBeCloseTo(Math.log(7), 12);
    expect(lse[1]).toBeCloseTo(Math.log(4), 12);
  });
  it("gives 0 and LSE -Infinity if no partial has a key", () => {
    const empty = { output: [Number.NaN, 5], lse: [NONE] };
    const { output, lse } = mergeAttention([empty, empty]);
    expect([...output]).toEqual([0, 0]);
    expect([...lse]).toEqual([NONE]);
  });
  it("returns a single partial as it is", () => {
    const { output, lse } = mergeAttention([{ output: [1.25, -3], lse: [17, -4] }]);
    expect([...output]).toEqual([1.25, -3]);
    expect([...lse]).toEqual([17, -4]);
  });
  it("does not mind LSEs of 10,000", () => {
    const { output, lse } = mergeAttention([
      { output: [1, 1, 1], lse: [1e4, 1e4, -1e4] },
      { output: [3, 3, 3], lse: [1e4, -1e4, -1e4] },
    ]);
    expect([...output]).toEqual([2, 1, 2]);
    expect([...lse]).toEqual([1e4 + Math.LN2, 1e4, -1e4 + Math.LN2]);
  });
  it("takes no rows", () => {
    expect(mergeAttention([{ output: [], lse: [] }])).toEqual({
      output: new Float64Array(),
      lse: new Float64Array(),
    });
  });
  it("equals attention over all keys, in f64 to the last digits and in f32 to its precision", () => {
    const B = 2;
    const H = 3;
    const M = 7;
    const N = 40;
    const D = 8;
    const Dv = 5;
    const q = { data: normal(1, B * H * M * D), shape: [B, H, M, D] };
    const keys = (from: number, to: number, data: Float32Array, width: number) => ({
      data,
      shape: [B, H, to - from, width],
      strides: [H * N * width, N * width, width, 1],
      offset: from * width,
    });
    const k = normal(2, B * H * N * D);
    const v = normal(3, B * H * N * Dv);
    const over = (from: number, to: number) =>
      attention(q, keys(from, to, k, D), keys(from, to, v, Dv));
    const whole = over(0, N);
    const cuts = [0, ...integers(4, 6, 0, N).sort((a, b) => a - b), N];
    const parts = cuts.slice(1).map((to, index) => over(cuts[index], to));
    const merged = mergeAttention(parts);
    expect(worstElement(merged.output, whole.output, [B, H, M, Dv]).error).toBeLessThan(1e-14);
    expect(worstElement(merged.lse, whole.lse, [B, H, M]).error).toBeLessThan(1e-14);
    const single = mergeAttention(parts, { precision: "f32" });
    const error = worstElement(single.output, whole.output, [B, H, M, Dv]).error;
    expect(error).toBeGreaterThan(1e-9);
    expect(error).toBeLessThan(1e-6 * largest(whole.output));
  });
});
