// Scores, weights and the best keys, in numbers worked by hand.

import { describe, expect, it } from "vitest";
import {
  attentionScores,
  type ReferenceScoreOptions,
  topKKeys,
} from "../../src/reference/index.ts";
import { close, tensor, zeros } from "./hand.ts";

const { LN2 } = Math;
const EMPTY = Number.NEGATIVE_INFINITY;
const q = tensor([1, 1, 1, 1], [LN2]);
const k = tensor([1, 1, 3, 1], [0, 1, 2]);

describe("attentionScores", () => {
  const run = (options: ReferenceScoreOptions) => attentionScores(q, k, options);

  it("shows each stage", () => {
    const options = {
      scale: 2,
      softcap: 1,
      bias: tensor([1, 1, 1, 3], [10, 20, 30]),
      window: [0, -1] as const,
      queryOffset: 1,
    };
    const raw = [0, 2 * LN2, 4 * LN2];
    const capped = raw.map(Math.tanh);
    close(run({ ...options, stage: "raw" }), raw);
    close(run({ ...options, stage: "capped" }), capped);
    close(run({ ...options, stage: "scores" }), [EMPTY, 20 + capped[1], 30 + capped[2]]);
    const ratio = Math.exp(10 + capped[2] - capped[1]);
    close(run({ ...options, stage: "probabilities" }), [0, 1 / (1 + ratio), ratio / (1 + ratio)]);
  });

  it("has raw scores of masked keys, but not of unused ones", () => {
    const poisoned = tensor([1, 1, 3, 1], [5, 1, Number.NaN]);
    const options = { scale: 1 / LN2, kvLengths: [2], causal: "top-left" } as const;
    close(attentionScores(q, poisoned, { ...options, stage: "raw" }), [5, 1, 0]);
    close(attentionScores(q, poisoned, { ...options, stage: "scores" }), [5, EMPTY, EMPTY]);
    close(attentionScores(q, poisoned, { ...options, stage: "probabilities" }), [1, 0, 0]);
  });

  it("counts the sink, and no dropout, in probabilities", () => {
    close(run({ stage: "probabilities" }), [1 / 7, 2 / 7, 4 / 7]);
    close(run({ stage: "probabilities", sinks: [0], dropout: { p: 1, seed: 0 } }), [
      1 / 8,
      2 / 8,
      4 / 8,
    ]);
  });

  it("gives empty and unused rows 0 or -Infinity", () => {
    const empty = { causal: true, queryOffset: -1, sinks: [2] } as const;
    close(run({ ...empty, stage: "scores" }), [EMPTY, EMPTY, EMPTY]);
    close(run({ ...empty, stage: "probabilities" }), [0, 0, 0]);
    close(run({ qLengths: [0], stage: "raw" }), [0, 0, 0]);
    close(run({ qLengths: [0], stage: "scores" }), [EMPTY, EMPTY, EMPTY]);
  });

  it("applies a probability function to every key of the used rows", () => {
    const options = { stage: "probabilities", causal: "top-left", qLengths: [1] } as const;
    const queries = tensor([1, 1, 2, 1], [1, 1]);
    const probabilityFunction = (p: number, { kvIdx }: { kvIdx: number }) => 2 * p + 10 * kvIdx;
    close(attentionScores(queries, k, { ...options, probabilityFunction }), [2, 10, 20, 0, 0, 0]);
  });
  it("computes chosen rows only", () => {
    const queries = tensor([1, 1, 3, 1], [1, 2, 3]);
    close(attentionScores(queries, k, { stage: "raw", rows: [2, 0] }), [0, 3, 6, 0, 1, 2]);
  });

  it("rounds to f32 when asked", () => {
    const thirds = attentionScores(zeros(1, 1, 1, 1), k, {
      stage: "probabilities",
      precision: "f32",
    });
    expect(thirds[0]).toBe(Math.fround(1 / 3));
  });
});

describe("topKKeys", () => {
  it("finds the largest scores, the smaller index first among equals", () => {
    const keys = tensor([1, 1, 5, 1], [1, 0, 2, 1, 2]);
    const { indices, weights } = topKKeys(q, keys, 4);
    expect(Array.from(indices)).toEqual([2, 4, 0, 3]);
    close(weights, [4 / 13, 4 / 13, 2 / 13, 2 / 13]);
  });

  it("goes by the final score and fills up with -1 and 0", () => {
    const bias = tensor([1, 1, 1, 3], [9, 0, EMPTY]);
    const { indices, weights } = topKKeys(zeros(1, 1, 1, 1), k, 4, { bias });
    expect(Array.from(indices)).toEqual([0, 1, -1, -1]);
    close(weights, [1 / (1 + Math.exp(-9)), 1 / (1 + Math.exp(9)), 0, 0]);
  });

  it("takes rows, sinks, and rows without a key", () => {
    const three = tensor([1, 1, 3, 1], [LN2, LN2, -LN2]);
    const causal = { causal: "top-left", sinks: [0] } as const;
    const all = topKKeys(three, k, 2, causal);
    expect(Array.from(all.indices)).toEqual([0, -1, 1, 0, 0, 1]);
    close(all.weights, [1 / 2, 0, 2 / 4, 1 / 4, 4 / 11, 2 / 11]);
    const last = topKKeys(three, k, 2, { ...causal, rows: [2] });
    expect(Array.from(last.indices)).toEqual([0, 1]);
    expect(Array.from(topKKeys(three, k, 1, { qLengths: [0] }).indices)).toEqual([-1, -1, -1]);
    expect(Array.from(topKKeys(three, k, 0).indices)).toEqual([]);
  });
});
