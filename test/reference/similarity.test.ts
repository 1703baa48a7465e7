// What the reference compares queries and keys by, in numbers worked by hand.

import { describe, it } from "vitest";
import { attention, attentionScores, type ReferenceOptions } from "../../src/reference/index.ts";
import { close, tensor } from "./hand.ts";

const { LN2 } = Math;
/** tanh x = 1/3 and 3/5 at multiples of ln 2: e^2x is 2 and 4. */
const THIRD = LN2 / 2;
const FIFTHS = LN2;

const raw = (q: number[], k: number[], options: ReferenceOptions, heads = 1) =>
  attentionScores(
    tensor([1, heads, 1, q.length / heads], q),
    tensor([1, 1, (k.length * heads) / q.length, q.length / heads], k),
    { ...options, stage: "raw" },
  );

describe("dot product", () => {
  it("is scaled by 1 / sqrt(D), or as one says", () => {
    close(raw([1, 2, 3, 4], [5, 6, 7, 8], {}), [35]);
    close(raw([1, 2, 3, 4], [5, 6, 7, 8], { scale: 1, similarity: "dot" }), [70]);
  });
  it("has a temperature for each head", () => {
    close(raw([2, 2], [3], { temperature: [1, 0.5] }, 2), [6, 3]);
    close(raw([2, 2], [3], { temperature: 10 }, 2), [60, 60]);
    close(raw([2, 2], [3], { logTemperature: [Math.log(7), 5] }, 2), [42, 600]);
    close(raw([2, 2], [3], { logTemperature: [Math.log(7), 5], maxTemperature: 5 }, 2), [30, 30]);
  });
});

describe("cosine similarity", () => {
  it("is that of the angle, unscaled", () => {
    close(raw([3, 4], [4, 3, -30, -40, 0, 0], { similarity: "cosine" }), [0.96, -1, 0]);
    close(raw([3, 4], [4, 3], { similarity: "cosine", scale: 2, temperature: 3 }), [5.76]);
  });
  it("divides short rows by eps", () => {
    close(raw([3, 4], [0.3, 0.4], { similarity: { kind: "l2", eps: 2 } }), [0.25]);
  });
  it("weighs the normalised columns", () => {
    const similarity = { kind: "l2", qWeights: [2, 1], kWeights: [1, 5] } as const;
    close(raw([3, 4], [4, 3], { similarity }), [0.6 * 2 * 0.8 + 0.8 * 0.6 * 5]);
  });
});

describe("rows over their root mean square", () => {
  it("are sqrt(D) long, and scaled as a dot product", () => {
    // Rows [1, 7] and [5, 5] have the mean square 25.
    close(
      raw([1, 7], [5, 5, 50, 50], { similarity: { kind: "rms", eps: 1e-300 }, scale: 1 }),
      [1.6, 1.6],
    );
    close(raw([1, 7], [5, 5], { similarity: { kind: "rms", eps: 1e-300 } }), [1.6 / Math.SQRT2]);
    close(raw([1, 7], [5, 5], { similarity: { kind: "rms", eps: 75 }, scale: 1 }), [0.4]);
  });
});

describe("additive attention", () => {
  it("sums tanh(q + k) over the columns", () => {
    const similarity = { kind: "additive" } as const;
    close(raw([THIRD, 0], [0, FIFTHS, THIRD, -FIFTHS], { similarity }), [
      1 / 3 + 3 / 5,
      3 / 5 - 3 / 5,
    ]);
  });
  it("weighs them by the vector, shared or of each head", () => {
    const q = [THIRD, 0, THIRD, 0];
    const k = [0, FIFTHS];
    const weighted = (vector: number | number[]) =>
      raw(q, k, { similarity: { kind: "additive", vector } }, 2);
    close(weighted([6, 10]), [8, 8]);
    close(weighted([6, 10, -3, 5]), [8, 2]);
    close(weighted(15), [14, 14]);
  });
  it("has a scale and a bias within, and the scale of all scores without", () => {
    const inner = { kind: "additive", innerScale: 2, innerBias: [0.5, -FIFTHS] } as const;
    close(raw([0.25, 0], [-0.5, FIFTHS], { similarity: inner, scale: 30 }), [18]);
    close(raw([0.25, 0], [0, FIFTHS], { similarity: inner }), [Math.tanh(1) + 0.6]);
  });
  it("takes the length of the vector from its gain", () => {
    const similarity = { kind: "additive", vector: [3, 4], normalize: true, gain: [10] } as const;
    close(raw([THIRD, FIFTHS], [0, 0], { similarity }), [6 / 3 + (8 * 3) / 5]);
    close(raw([1, 1], [0, 0], { similarity: { ...similarity, vector: [0, 0] } }), [0]);
  });
  it("is attention otherwise", () => {
    // Scores ln 2 and 0 weigh the keys 2 : 1; the third is not seen.
    const q = tensor([1, 1, 1, 1], [0]);
    const k = tensor([1, 1, 3, 1], [THIRD, 0, 9]);
    const v = tensor([1, 1, 3, 1], [3, 6, 100]);
    const similarity = { kind: "additive", vector: [3 * LN2] } as const;
    const { output, lse } = attention(q, k, v, { similarity, kvLengths: [2] });
    close(output, [4]);
    close(lse, [Math.log(3)]);
  });
});
