// The references of softmax and normalisation of rows against numbers worked by hand.

import { describe, expect, it } from "vitest";
import { layerNorm, softmaxAlong } from "../../src/reference/index.ts";
import { close, tensor } from "./hand.ts";

const { log, sqrt } = Math;
const NONE = Number.NEGATIVE_INFINITY;

describe("reference softmaxAlong", () => {
  // Columns 0: ln 1, ln 3; 1: ln 2, ln 2; 2: ln 9, ln 1.
  const x = tensor([2, 3], [0, log(2), log(9), log(3), log(2), 0]);
  it("sums to 1 along the axis", () => {
    close(softmaxAlong(x), [1 / 12, 2 / 12, 9 / 12, 3 / 6, 2 / 6, 1 / 6]);
    close(softmaxAlong(x, { axis: 0 }), [1 / 4, 1 / 2, 9 / 10, 3 / 4, 1 / 2, 1 / 10]);
    close(softmaxAlong(x, { axis: -2 }), [1 / 4, 1 / 2, 9 / 10, 3 / 4, 1 / 2, 1 / 10]);
  });
  it("has a logarithm", () => {
    close(softmaxAlong(x, { log: true }), [1 / 12, 2 / 12, 9 / 12, 3 / 6, 2 / 6, 1 / 6].map(log));
  });
  it("does not count -Infinity", () => {
    close(softmaxAlong(tensor([2, 2], [NONE, 1000, NONE, NONE])), [0, 1, 0, 0]);
    expect([...softmaxAlong(tensor([2, 2], [NONE, 1000, NONE, NONE]), { log: true })]).toEqual([
      NONE,
      0,
      NONE,
      NONE,
    ]);
  });
  it("is NaN where there is NaN or Infinity", () => {
    const { NaN: nan, POSITIVE_INFINITY: infinite } = Number;
    for (const log of [false, true]) {
      const values = softmaxAlong(
        tensor([3, 3], [1, nan, NONE, infinite, NONE, 2, 0, NONE, NONE]),
        { log },
      );
      expect([...values.slice(0, 6)]).toEqual(new Array(6).fill(nan));
      expect([...values.slice(6)]).toEqual(log ? [0, NONE, NONE] : [1, 0, 0]);
    }
  });
});

describe("reference layerNorm", () => {
  const x = tensor([2, 2], [1, 3, 5, 11]); // means 2 and 8, deviations 1 and 3
  it("takes off the mean and divides by the deviation", () => {
    const { output, mean, inverseDeviation } = layerNorm(x, { epsilon: 0 });
    close(output, [-1, 1, -1, 1]);
    close(mean, [2, 8]);
    close(inverseDeviation, [1, 1 / 3]);
    close(layerNorm(x, { epsilon: 16 }).inverseDeviation, [1 / sqrt(17), 1 / 5]);
  });
  it("has weights and a bias of each element", () => {
    const options = { epsilon: 0, weight: tensor([2], [2, 3]), bias: tensor([2], [10, 20]) };
    close(layerNorm(x, options).output, [8, 23, 8, 23]);
  });
  it("of a row without deviation is 0, or its bias, without an epsilon too", () => {
    const equal = tensor([2, 3], [0.1, 0.1, 0.1, 7e8, 7e8, 7e8]);
    for (const epsilon of [0, 1e-12]) {
      const { output, mean } = layerNorm(equal, { epsilon, bias: tensor([3], [1, 2, 3]) });
      expect([...output]).toEqual([1, 2, 3, 1, 2, 3]);
      expect([...mean]).toEqual([0.1, 7e8]);
    }
    expect([...layerNorm(tensor([1, 2], [0, 0]), { rms: true, epsilon: 0 }).output]).toEqual([
      0, 0,
    ]);
  });
  it("divides by the root mean square", () => {
    // mean square 25
    const { output, mean } = layerNorm(tensor([1, 2], [1, 7]), { rms: true, epsilon: 0 });
    close(output, [1 / 5, 7 / 5]);
    close(mean, [0]);
  });
  it("is of a sum, over as many axes as asked for", () => {
    const options = {
      residual: tensor([2, 1], [1, 2]),
      residualBias: tensor([2], [-1, -2]),
      axis: 0,
      epsilon: 0,
    };
    const { sum, mean, output } = layerNorm(tensor([2, 2], [1, 3, 4, 8]), options); // 1, 2, 5, 8
    close(sum, [1, 2, 5, 8]);
    close(mean, [4]);
    close(
      output,
      [-3, -2, 1, 4].map((off) => off / sqrt(7.5)),
    );
  });
});
