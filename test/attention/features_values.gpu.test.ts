// Every way to mask, bias, score and store, against the float64 reference: each alone, at its
// corners, and in company.

import { describe, it } from "vitest";
import { breadth } from "../support/breadth.ts";
import { type Case, runCase, title } from "../support/cases.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

// The smallest tile compiles fastest, and has the same text as the other tiles, which get all
// features at once at the end.
const small = { variant: "8x32", D: 8 } as const;
const all = (problems: readonly (Partial<Case> & { M: number; N: number })[]) => {
  for (const problem of problems) {
    const whole: Case = { ...small, ...problem };
    it(title(problem as Case), async () => runCase(await testDevice(), whole));
  }
};

describe("window", () => {
  all([
    { H: 2, M: 70, N: 100, window: [9, 3] },
    { M: 100, N: 70, window: [0, 0] },
    { M: 70, N: 100, window: [-1, 5] },
    { M: 70, N: 100, window: [40, -1] },
    { M: 70, N: 100, window: [17, 50], causal: true },
    { M: 70, N: 100, window: [17, 4], causal: "top-left" },
    { B: 3, M: 66, N: 90, window: [5, 7], queryOffset: [-70, 0, 24] },
    { B: 2, M: 66, N: 90, window: [5, 7], kvLengths: [90, 33] },
  ]);
});

describe("chunks", () => {
  all([
    { M: 100, N: 100, attentionChunk: 7 },
    { M: 70, N: 100, attentionChunk: 33, causal: true },
    { M: 100, N: 70, attentionChunk: 40 }, // negative positions
    { M: 70, N: 100, attentionChunk: 1, causal: "top-left" },
    { M: 70, N: 100, attentionChunk: 64, window: [10, 10] },
    { M: 70, N: 200, window: [5, 0], sinkTokens: 4 },
    { M: 70, N: 200, window: [5, 0], sinkTokens: 64, causal: true }, // two whole tiles of sinks
    { M: 130, N: 250, window: [20, 3], sinkTokens: 33, attentionChunk: 100 },
    { M: 70, N: 100, window: [0, 0], sinkTokens: 500, queryOffset: -20 }, // more sinks than keys
    { M: 70, N: 100, window: [0, 0], sinkTokens: 3, queryOffset: 60 }, // windows past the last key
  ]);
});

describe("lengths", () => {
  all([
    { B: 4, H: 2, M: 40, N: 70, qLengths: [40, 0, 1, 33], kvLengths: [70, 30, 0, 20] },
    { B: 3, H: 2, M: 70, N: 70, qLengths: [70, 31, 5], causal: true },
    {
      B: 3,
      H: 2,
      M: 70,
      N: 70,
      qLengths: [70, 31, 5],
      kvLengths: [20, 70, 64],
      causal: true,
      onGpu: true,
    },
    { B: 2, M: 70, N: 40, qLengths: [64, 70], sinks: true },
  ]);
});

describe("packed sequences", () => {
  const cu = { cuSeqlensQ: [0, 17, 17, 60, 61], cuSeqlensKv: [0, 40, 55, 55, 90] };
  all([
    { H: 2, M: 61, N: 90, ...cu },
    { H: 4, Hkv: 2, M: 61, N: 90, ...cu, causal: true },
    { H: 2, M: 61, N: 90, ...cu, causal: true, layout: "bmhd", onGpu: true },
    {
      H: 2,
      M: 61,
      N: 90,
      ...cu,
      qLengths: [9, 0, 43, 1],
      kvLengths: [33, 15, 0, 7],
      window: [8, 8],
    },
    {
      H: 2,
      M: 61,
      N: 90,
      ...cu,
      alibi: "BH",
      sinks: true,
      bias: { axes: "BHMN" },
      dropout: { p: 0.3, seed: 5 },
    },
  ]);
});

describe("boolean mask", () => {
  all([
    { B: 2, H: 2, M: 37, N: 70, mask: { axes: "BHMN" } },
    { B: 2, H: 2, M: 37, N: 70, mask: { axes: "BN" } },
    { B: 2, H: 2, M: 37, N: 70, mask: { axes: "HM" } }, // whole rows
    { B: 2, H: 2, M: 37, N: 70, mask: { axes: "BHMN", bits: true } },
    { B: 2, H: 2, M: 37, N: 70, mask: { axes: "MN", bits: true, keep: 0.1 }, causal: true },
    { M: 37, N: 70, mask: { axes: "MN", keep: 0 } },
  ]);
});

describe("bias", () => {
  all([
    { B: 2, H: 2, M: 37, N: 70, bias: { axes: "BHMN" } },
    { B: 2, H: 2, M: 37, N: 70, bias: { axes: "HMN", blocked: 0.4 }, causal: true },
    { B: 2, H: 2, M: 37, N: 70, bias: { axes: "N", blocked: 0.9 } },
    { M: 37, N: 70, bias: { axes: "MN", blocked: 1 } },
  ]);
});

describe("scores", () => {
  all([
    { H: 2, M: 37, N: 70, rowMax: true, softcap: 3, spread: 3 },
    { H: 2, M: 37, N: 70, rowMax: true, softcap: 50 },
    { H: 2, M: 37, N: 70, rowMax: true, softcap: 30, spread: 20 },
    { H: 3, M: 37, N: 70, alibi: "H", causal: true },
    { B: 2, H: 3, M: 37, N: 70, alibi: "BH", onGpu: true },
    // Scores of 47 in a row: rounding them once more than a plain evaluation does would show.
    { H: 3, M: 2, N: 65, D: 1, layout: "bmhd", alibi: "H", seed: 11 },
    { H: 3, M: 37, N: 70, relativeBias: { buckets: 8, maxDistance: 20 } },
    {
      H: 3,
      M: 70,
      N: 250,
      relativeBias: { buckets: 32, bidirectional: false },
      causal: true,
      onGpu: true,
    },
    { H: 3, M: 37, N: 70, sinks: true, rowMax: true },
    // empty rows with a sink
    { H: 3, M: 70, N: 37, sinks: true, rowMax: true, causal: true, onGpu: true },
    { H: 2, M: 37, N: 70, rowMax: true, causal: true, softcap: 5 },
    { H: 2, M: 70, N: 37, rowMax: true, causal: true, sinks: true },
  ]);
});

describe("dropout", () => {
  all([
    { B: 2, H: 2, M: 37, N: 70, dropout: { p: 0.1, seed: 1 } },
    { H: 2, M: 37, N: 70, dropout: { p: 0.9, seed: 2 ** 40 + 17 }, causal: true, rowMax: true },
    { H: 2, M: 37, N: 70, dropout: { p: 0.4, seed: 5, step: 2 ** 32 - 1 } },
    { B: 2, M: 37, N: 70, dropout: { p: 0.4, seed: 2 ** 40, step: 2 ** 31 + 3 }, onGpu: true },
    { M: 37, N: 70, dropout: { p: 1, seed: 3 } },
    { M: 37, N: 70, dropout: { p: 0, seed: 3 } },
  ]);
});

describe("functions", () => {
  all([
    { B: 2, H: 3, M: 37, N: 70, scoreFunction: "weighted", softcap: 4 },
    { H: 2, M: 70, N: 37, maskFunction: "causal", scoreFunction: "halved" },
    { B: 2, H: 2, M: 37, N: 70, scoreFunction: "hiding" }, // and some queries see nothing
    { H: 2, M: 37, N: 70, maskFunction: "nothing", sinks: true },
    { H: 2, M: 37, N: 70, maskFunction: "heads", mask: { axes: "MN" } },
  ]);
});

describe("block masks", () => {
  all([
    { H: 2, M: 200, N: 300, maskFunction: "window", blockSize: [64, 64] },
    { H: 2, M: 200, N: 300, maskFunction: "causal", blockSize: [128, 32] },
    { H: 2, M: 200, N: 300, maskFunction: "causal", blockSize: [64, 96], window: [30, 10] },
    { H: 2, M: 300, N: 200, maskFunction: "dilated", blockSize: [64, 64], queryOffset: 11 },
    { H: 3, M: 70, N: 70, maskFunction: "heads", blockSize: [64, 64] },
  ]);
});

describe("everything at once", () => {
  const company: Partial<Case> = {
    window: [40, 9],
    softcap: 8,
    alibi: "BH",
    relativeBias: { buckets: 8 },
    sinks: true,
    rowMax: true,
    mask: { axes: "HMN" },
    bias: { axes: "BMN", blocked: 0.1 },
    dropout: { p: 0.25, seed: 9 },
    scoreFunction: "sloped",
    maskFunction: "heads",
  };
  all([
    {
      B: 2,
      H: 4,
      Hkv: 2,
      M: 70,
      N: 90,
      causal: true,
      kvLengths: [90, 61],
      qLengths: [70, 50],
      ...company,
      variant: "32x32",
    },
  ]);
  for (const variant of ["8x32", ...breadth("64x64")])
    all([
      {
        B: 2,
        H: 2,
        M: 40,
        N: 90,
        layout: "bmhd",
        attentionChunk: 32,
        onGpu: true,
        ...company,
        variant,
      },
      {
        H: 4,
        Hkv: 2,
        M: 131,
        N: 190,
        cuSeqlensQ: [0, 17, 17, 100, 131],
        cuSeqlensKv: [0, 40, 55, 130, 190],
        causal: true,
        window: [30, 0],
        sinkTokens: 5,
        mask: { axes: "HMN", bits: true },
        sinks: true,
        variant,
      },
      {
        H: 2,
        M: 200,
        N: 300,
        maskFunction: "dilated",
        blockSize: [64, 128],
        queryOffset: 11,
        variant,
      },
    ]);
});
