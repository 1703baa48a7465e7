// The gradients of biases, slopes, tables, sinks and temperatures against the float64 reference.

import { describe, expect, it } from "vitest";
import {
  attentionBackward,
  type FoveaErrorCode,
  planAttentionBackward,
} from "../../../src/index.ts";
import { breadth } from "../../support/breadth.ts";
import { failOnGpuErrors, testDevice } from "../../support/device.ts";
import { expectError } from "../../support/errors.ts";
import {
  makeScoreGradients,
  runScoreGradients,
  type ScoreGradientCase,
} from "../../support/score_gradient_cases.ts";

failOnGpuErrors();

const title = (problem: ScoreGradientCase) => JSON.stringify(problem);

function cases(what: string, problems: readonly ScoreGradientCase[]): void {
  describe(what, () => {
    for (const problem of problems)
      it(title(problem), async () => void (await runScoreGradients(await testDevice(), problem)));
  });
}

// Kernels with all options at once: sizes, lengths, positions and axes of a bias compile nothing.
const ALL = {
  H: 2,
  alibi: "H",
  relativeBias: { buckets: 8, maxDistance: 20 },
  sinks: true,
  temperature: "plain",
  softcap: 4,
  dropout: { p: 0.2, seed: 5 },
} as const;

cases("all options at once", [
  { ...ALL, B: 2, M: 9, N: 35, kvLengths: [35, 20], bias: { axes: "BHMN", blocked: 0.2 } },
  {
    ...ALL,
    B: 3,
    M: 20,
    N: 70,
    qLengths: [20, 7, 0],
    kvLengths: [70, 0, 33],
    alibi: "BH",
    bias: { axes: "HN" },
    causal: true,
    poison: true,
    strided: true,
  },
  { ...ALL, B: 2, H: 4, Hkv: 2, M: 17, N: 33, kvLengths: [33, 32], bias: { axes: "M" } },
  { ...ALL, B: 2, M: 40, N: 40, kvLengths: [40, 9], bias: { axes: "BH" }, window: [5, 2] },
  { ...ALL, B: 2, M: 1, N: 1, kvLengths: [1, 1], bias: { axes: "" } },
  {
    ...ALL,
    M: 12,
    N: 80,
    kvLengths: [80],
    bias: { axes: "MN" },
    queryOffset: 30,
    gradientSpread: 1e4,
    valueSpread: 1e3,
  },
  {
    ...ALL,
    B: 2,
    M: 25,
    N: 30,
    kvLengths: [30, 30],
    bias: { axes: "BN" },
    gradientSpread: 1e-8,
    layout: "bmhd",
  },
  { ...ALL, B: 2, M: 30, N: 50, kvLengths: [50, 41], bias: { axes: "HMN" }, maxDispatchFlops: 1 },
  { ...ALL, M: 5, N: 0, kvLengths: [0], bias: { axes: "HM" } },
  { ...ALL, M: 9, N: 20, kvLengths: [20], bias: { axes: "N" }, given: { temperature: [0, -1.5] } },
]);
cases("other kernels", [
  {
    H: 2,
    M: 40,
    N: 45,
    cuSeqlensQ: [0, 5, 5, 36],
    cuSeqlensKv: [0, 9, 12, 43],
    temperature: "log",
    causal: true,
    poison: true,
    given: { logTemperature: [-0.3, 5] }, // exp(5) is above the bound of 100
  },
  {
    H: 2,
    M: 20,
    N: 40,
    similarity: { kind: "additive", innerBias: true, normalize: true },
    temperature: "plain",
    relativeBias: { buckets: 8 },
  },
  // Storage, other tiles, and what changes or hides scores.
  ...breadth<ScoreGradientCase>(
    { H: 2, M: 20, N: 40, D: 6, bias: { axes: "HMN" }, dtype: "f16", causal: true },
    { H: 2, M: 20, N: 40, D: 6, bias: { axes: "HMN" }, dtype: "bf16", layout: "bmhd" },
    { H: 2, M: 70, N: 133, D: 16, bias: { axes: "HMN" }, variant: "32x64" },
    { H: 2, M: 70, N: 133, D: 16, relativeBias: { buckets: 70 }, variant: "32x64" },
    { B: 2, H: 2, M: 40, N: 50, alibi: "BH", variant: "16x32", causal: true },
    { H: 2, M: 20, N: 40, similarity: "cosine", temperature: "log", softcap: 2 },
    { H: 2, M: 20, N: 40, mask: { axes: "BMN", keep: 0.4 }, bias: { axes: "N" }, sinks: true },
    { H: 2, M: 70, N: 66, maskFunction: "dilated", bias: { axes: "H" } },
  ),
]);
describe("gradients of options", () => {
  it("are the same bits every time", async () => {
    const problem = { ...ALL, B: 2, M: 20, N: 40, kvLengths: [40, 31], bias: { axes: "H" } };
    const made = makeScoreGradients(await testDevice(), problem as ScoreGradientCase);
    const { q, k, v, options, results } = made;
    const run = async () => {
      await attentionBackward(q, k, v, { ...options, ...results });
      return Promise.all(Object.values(results).map((one) => one.read()));
    };
    const first = await run();
    for (let repeat = 0; repeat < 8; repeat++) expect(await run()).toEqual(first);
    made.destroy();
  });

  it("don't lose digits where many scores are summed", async () => {
    // All of dLse is 1 and all of dOutput is 0, so that dS is P, and a bias for all scores gets
    // the number of rows, less what the sinks take.
    const problem: ScoreGradientCase = {
      ...ALL,
      B: 2,
      M: 256,
      N: 40,
      kvLengths: [40, 40],
      bias: { axes: "" },
      change: ({ dOutput }) => dOutput.fill(0),
    };
    const made = makeScoreGradients(await testDevice(), problem);
    const { q, k, v, options, results } = made;
    const rows = 2 * 2 * 256;
    await (options.dLse as NonNullable<typeof options.dLse>).write(new Float32Array(rows).fill(1));
    await attentionBackward(q, k, v, { ...options, ...results });
    const [bias] = await results.dBias.read();
    const sinks = await results.dSinks.read();
    expect(Math.abs(bias + sinks[0] + sinks[1] - rows) / rows).toBeLessThan(4e-7);
    made.destroy();
  });

  it("keep a NaN to what sees it", async () => {
    const problem: ScoreGradientCase = {
      ...ALL,
      M: 12,
      N: 12,
      kvLengths: [12],
      causal: true,
      bias: { axes: "MN" },
      change: ({ v }) => v.fill(Number.NaN, 7 * 8 + 3, 7 * 8 + 4),
    };
    const made = makeScoreGradients(await testDevice(), { ...problem, H: 1 });
    const { q, k, v, options, results } = made;
    await attentionBackward(q, k, v, { ...options, ...results });
    const found = await results.dBias.read();
    const spoilt = Array.from({ length: 12 }, (_, row) =>
      Array.from(found.subarray(row * 12, row * 12 + row + 1)).some(Number.isNaN),
    );
    expect(spoilt).toEqual(Array.from({ length: 12 }, (_, row) => row >= 7));
    expect(Array.from(await results.dSinks.read())).toEqual([Number.NaN]);
    made.destroy();
  });

  it("are refused for options that a problem does not have, and in other shapes", async () => {
    const device = await testDevice();
    const rows = { shape: [1, 2, 5, 8] };
    const problem = { q: rows, k: rows, v: rows, bias: { shape: [2, 1, 5] } };
    const refused: [object, FoveaErrorCode, string][] = [
      [
        { dSinks: true },
        "argument",
        "attentionBackward: dSinks is the gradient of sinks, which is not given.",
      ],
      [
        { dBias: { shape: [1, 2, 1, 5] } },
        "argument",
        "attentionBackward: dBias must be [2, 1, 5], got [1, 2, 1, 5].",
      ],
      [
        { dBias: { shape: [2, 1, 5], dtype: "f16" } },
        "argument",
        "attentionBackward: dBias must be f32, got f16.",
      ],
      [
        { dBias: 1 },
        "argument",
        "attentionBackward: dBias must be true, a tensor or a spec, got 1.",
      ],
      [
        { alibiSlopes: [1, 2], dAlibiSlopes: { shape: [2], strides: [0] } },
        "overlap",
        "attentionBackward: elements of dAlibiSlopes share memory (shape [2], strides [0]); an output needs a place for each.",
      ],
    ];
    for (const [options, code, message] of refused)
      await expectError(
        () => planAttentionBackward(device, { ...problem, ...options }),
        code,
        message,
      );
  });
});
