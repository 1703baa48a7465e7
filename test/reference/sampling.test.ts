// The float64 choice of tokens, against numbers found by hand.

import { describe, expect, it } from "vitest";
import {
  chooseToken,
  samplingProbabilities,
  topTokens,
  uniformOfDraw,
} from "../../src/reference/index.ts";

const { NEGATIVE_INFINITY: removed } = Number;
/** Logits of probabilities 0.5, 0.25, 0.125 and 0.125. */
const logits = [0.5, 0.25, 0.125, 0.125].map(Math.log);
const close = (found: ArrayLike<number>, expected: readonly number[]) => {
  expect(found).toHaveLength(expected.length);
  for (const [id, p] of expected.entries()) expect(found[id]).toBeCloseTo(p, 14);
};

describe("probabilities", () => {
  it("are a softmax, of a temperature", () => {
    close(samplingProbabilities(logits), [0.5, 0.25, 0.125, 0.125]);
    const halved = [16, 4, 1, 1].map((x) => x / 22);
    close(samplingProbabilities(logits, { temperature: 0.5 }), halved);
    close(samplingProbabilities([1, 3, 3], { temperature: 0 }), [0, 1, 0]);
  });
  it("have a penalty once for each token that was said", () => {
    const options = { history: [0, 1, 0], repetitionPenalty: 2 };
    const [a, b, c] = [2, -2, 0].map(Math.exp).map(Number);
    const sum = Math.exp(1) + Math.exp(-4) + c;
    expect(a * b).toBeCloseTo(1, 12);
    close(samplingProbabilities([2, -2, 0], options), [
      Math.exp(1) / sum,
      Math.exp(-4) / sum,
      c / sum,
    ]);
  });
  it("are cut by top-k, which keeps ties, by top-p, and by min-p", () => {
    close(samplingProbabilities(logits, { topK: 2 }), [2 / 3, 1 / 3, 0, 0]);
    close(samplingProbabilities(logits, { topK: 3 }), [0.5, 0.25, 0.125, 0.125]);
    close(samplingProbabilities(logits, { topP: 0.7 }), [2 / 3, 1 / 3, 0, 0]);
    close(samplingProbabilities(logits, { topP: 0.8 }), [4 / 7, 2 / 7, 0, 1 / 7]);
    close(samplingProbabilities(logits, { topP: 0 }), [1, 0, 0, 0]);
    close(samplingProbabilities(logits, { minP: 0.4 }), [2 / 3, 1 / 3, 0, 0]);
    close(samplingProbabilities([0, removed, 0], { topP: 0.9 }), [0.5, 0, 0.5]);
  });
});

it("a choice is the first token at which the sum is above u", () => {
  const p = [0.25, 0, 0.5, 0.25, 0];
  expect([0, 0.24, 0.25, 0.74, 0.75, 0.999].map((u) => chooseToken(p, u))).toEqual([
    0, 0, 2, 2, 3, 3,
  ]);
  expect(chooseToken([0.5, 0.4999999, 0], 0.9999999999)).toBe(1);
  const draws = [uniformOfDraw(7, 0, 0), uniformOfDraw(7, 0, 1), uniformOfDraw(7, 1, 0)];
  expect(new Set(draws).size).toBe(3);
  for (const u of draws) expect(u >= 0 && u < 1).toBe(true);
  expect(uniformOfDraw(0, 0, 0)).toBe(0x6b200159 / 2 ** 32);
});

it("the largest logits come in order, the lower id first among equals", () => {
  const { ids, logprobs } = topTokens([0, removed, 1, 1, removed], 5);
  expect(ids).toEqual([2, 3, 0, 1, 4]);
  const sum = 1 + 2 * Math.E;
  close(logprobs.slice(0, 3), [Math.log(Math.E / sum), Math.log(Math.E / sum), -Math.log(sum)]);
  expect(logprobs.slice(3)).toEqual([removed, removed]);
});
