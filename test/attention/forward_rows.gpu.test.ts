// The forward kernel without tiles, against the float64 reference: in quads, as software adapters
// take it, and in its default form, which needs no feature.

import { describe, expect, it } from "vitest";
import { planAttention, tensor } from "../../src/index.ts";
import { chooseForwardTile } from "../../src/kernels/forward_tiles.ts";
import { normal } from "../../src/reference/random.ts";
import { type Case, runCase, title } from "../support/cases.ts";
import { failOnGpuErrors, overridden, testDevice } from "../support/device.ts";
import { expectSameUnrolled } from "../support/expansion.ts";

failOnGpuErrors();

const all = (problems: readonly Case[]) => {
  for (const problem of problems)
    it(title(problem), async () => runCase(await testDevice(), problem));
};

// Lengths around the rows of a tile (32, 16, 8 or 64), the keys of a block (4) and those of a step
// of the walk (32).
const LENGTHS = [
  [1, 1],
  [3, 5],
  [15, 4],
  [16, 31],
  [17, 33],
  [33, 32],
  [64, 63],
  [67, 130],
  [5, 509],
] as const;

describe.each([
  ["16x4-quad", 16],
  ["64x4", 12],
])("%s", (variant, D) => {
  all(
    LENGTHS.flatMap(([M, N]) =>
      [false, true].map((causal) => ({ H: 2, M, N, D, variant, causal })),
    ),
  );
  all([
    { M: 3, N: 0, D, variant },
    { M: 0, N: 3, D, variant },
    { B: 2, H: 6, Hkv: 2, M: 33, N: 40, D, variant, causal: "top-left" },
    { M: 70, N: 100, D, variant, causal: true, queryOffset: -70 }, // every row is empty
    { B: 3, M: 66, N: 90, D, variant, window: [5, 7], queryOffset: [-70, 0, 24] },
    { B: 5, H: 2, M: 40, N: 70, D, variant, kvLengths: [70, 0, 1, 32, 33], causal: true },
    { M: 70, N: 200, D, variant, window: [5, 0], sinkTokens: 37, causal: true },
    { M: 100, N: 70, D, variant, attentionChunk: 33 },
    { H: 2, M: 65, N: 130, D, variant, spread: 50, causal: true },
    { H: 2, M: 65, N: 130, D, variant, scale: 0 },
    { H: 2, M: 65, N: 130, D, variant, scale: -2, maxDispatchFlops: 1e5 },
  ]);
});

describe("widths and accesses", () => {
  const variant = "8x4-quad";
  all([
    { H: 2, M: 37, N: 45, D: 5, Dv: 7, variant, causal: true },
    { H: 4, Hkv: 2, M: 37, N: 45, D: 24, Dv: 300, variant, causal: true }, // two shares of v
    {
      B: 2,
      H: 3,
      M: 33,
      N: 40,
      D: 16,
      Dv: 4,
      variant,
      layout: "bmhd",
      dtype: ["f16", "bf16", "f16", "bf16"],
    },
    { B: 2, H: 3, M: 33, N: 40, D: 6, Dv: 10, variant, layout: "bmhd", dtype: "bf16" },
  ]);
});

// Each feature is tested beside others that its code does not meet, and all of them together at the
// end.
describe("features", () => {
  const quads = { variant: "8x4-quad", D: 8 } as const;
  const cu = { cuSeqlensQ: [0, 17, 17, 60, 61], cuSeqlensKv: [0, 40, 55, 55, 90] };
  all([
    { ...quads, H: 4, Hkv: 2, M: 61, N: 90, ...cu, causal: true, rowMax: true },
    // empty rows with a sink
    { ...quads, H: 3, M: 70, N: 37, sinks: true, rowMax: true, causal: true },
    { ...quads, H: 2, M: 37, N: 70, softcap: 3, spread: 3, alibi: "H", causal: true },
    {
      ...quads,
      B: 2,
      H: 2,
      M: 37,
      N: 70,
      mask: { axes: "BHMN" },
      bias: { axes: "HMN", blocked: 0.4 },
    },
    {
      ...quads,
      H: 2,
      M: 37,
      N: 70,
      dropout: { p: 0.3, seed: 7 },
      mask: { axes: "MN", bits: true, keep: 0.1 },
    },
    {
      ...quads,
      H: 3,
      M: 70,
      N: 90,
      relativeBias: { buckets: 8, maxDistance: 20 },
      scoreFunction: "weighted",
    },
    {
      ...quads,
      H: 2,
      M: 200,
      N: 300,
      maskFunction: "causal",
      blockSize: [64, 96],
      window: [30, 10],
    },
    { ...quads, H: 2, M: 37, N: 70, similarity: "cosine", temperature: "log" },
    {
      ...quads,
      variant: "64x4",
      B: 2,
      H: 4,
      Hkv: 2,
      M: 70,
      N: 90,
      causal: true,
      kvLengths: [90, 61],
      qLengths: [70, 50],
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
    },
  ]);
});

describe("what a device gets", () => {
  const limits = { workgroupBytes: 16384, software: true, subgroups: true };
  const chosen = (
    headDim: number,
    vDim: number,
    seqQ: number,
    over: object = {},
    additive = false,
  ) => chooseForwardTile({ headDim, vDim, seqQ, additive }, { ...limits, ...over }).name;
  it("are quads on software adapters with subgroups, if rows fit registers", () => {
    expect(chosen(64, 64, 511)).toBe("16x4-quad");
    expect(chosen(64, 64, 512)).toBe("32x4-quad");
    expect(chosen(128, 128, 4096)).toBe("16x4-quad");
    expect(chosen(256, 8, 100)).toBe("8x4-quad");
    expect(chosen(260, 256, 100)).toBe("32x32");
    expect(chosen(64, 64, 100, {}, true)).toBe("16x4-quad");
  });
  it("are tiles elsewhere", () => {
    expect(chosen(64, 64, 100, { subgroups: false })).toBe("64x32");
    expect(chosen(64, 64, 100, { software: false, workgroupBytes: 32768 })).toBe("64x64");
    expect(chosen(64, 128, 100, { software: false, workgroupBytes: 32768 })).toBe("64x32-wide");
    expect(chosen(64, 64, 100, { software: false })).toBe("64x32");
    expect(chosen(64, 64, 100, { subgroups: false }, true)).toBe("64x32");
  });
  it("is a refusal if a variant can't run", async () => {
    const device = await testDevice();
    const make = () => tensor(device, [1, 1, 4, 128], { data: normal(1, 512) });
    const q = make();
    const k = make();
    const v = make();
    const without = overridden(device, { features: new Set() });
    await expect(planAttention(without, { q, k, v, variant: "16x4-quad" })).rejects.toMatchObject({
      code: "limit",
      message:
        "variant 16x4-quad needs the feature subgroups, which the device does not have; take another.",
    });
    await expect(planAttention(device, { q, k, v, variant: "64x4" })).rejects.toMatchObject({
      code: "limit",
      message: "variant 64x4 can't run here: it takes head dims up to 96, and this is 128.",
    });
  });
});

describe("loop expansion", () => {
  it("changes no bit of the result", () => expectSameUnrolled("8x4-quad", [1, 2, 21, 8]));
});
