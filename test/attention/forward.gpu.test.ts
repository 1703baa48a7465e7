// The forward kernel against the float64 reference, over the shapes and inputs at which tiled
// kernels break.

import { describe, expect, it } from "vitest";
import { LADDER } from "../../bench/ladder.ts";
import { attention, tensor } from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { breadth } from "../support/breadth.ts";
import { type Case, product, runCase, title } from "../support/cases.ts";
import {
  failOnGpuErrors,
  newDevice,
  plainDevice,
  testDevice,
  withLimits,
} from "../support/device.ts";

failOnGpuErrors();

const all = (problems: readonly Case[]) => {
  for (const problem of problems)
    it(title(problem), async () => runCase(await testDevice(), problem));
};

// Lengths around the tiles (64 or 32 rows, 32 or 64 keys), primes, and M != N both ways.
const LENGTHS: readonly (readonly [M: number, N: number])[] = [
  [1, 1],
  [1, 65],
  [31, 33],
  [33, 31],
  [63, 64],
  [64, 63],
  [65, 1],
  [97, 61],
  [61, 131],
  [9, 509], // with fewer queries a software adapter decodes
];

describe("lengths", () => {
  all(LENGTHS.map(([M, N]) => ({ H: 2, M, N, D: 64 })));
  all([
    { M: 9, N: 0, D: 64 },
    { M: 0, N: 3, D: 64 },
    { B: 0, M: 9, N: 3, D: 64 },
    { M: 9, N: 4099, D: 64 },
    { B: 5, H: 3, M: 17, N: 17, D: 64 },
  ]);
});

describe("variants of the tile table", () => {
  // Head dims at which q takes one chunk and two; each kernel takes a software adapter seconds to
  // compile.
  for (const [variant, D] of [
    ["64x64", 64],
    ["64x32", 24],
    ["64x32-wide", 40],
    ["32x32", 40],
    ["8x32", 40],
  ] as const) {
    all([
      { H: 2, M: 65, N: 97, D, variant },
      { H: 2, M: 97, N: 65, D, variant, causal: true },
    ]);
  }
});

// A chunk has up to 8 vec4 columns, and a workgroup up to 128 or 256 columns of v. These head dims
// lie on both sides of each limit, with odd sizes and D != Dv.
const HEAD_DIMS: readonly (readonly [D: number, Dv: number])[] = [
  [5, 7],
  [40, 40],
  [128, 128],
  [64, 132],
  [8, 260],
  ...breadth<readonly [D: number, Dv: number]>([80, 80], [2048, 2048]),
];
/**
 * Only the tile that compiles fastest has these: the loads of a row are the same text in all tiles.
 */
const MORE_HEAD_DIMS: typeof HEAD_DIMS = [
  [1, 1],
  [31, 31],
  [32, 32],
  [128, 32],
  [2048, 16],
];

describe("head dims", () => {
  // D = 256 is among the devices below, in tests of breadth.
  const cases = (dims: typeof HEAD_DIMS) =>
    dims.map(([D, Dv]) => ({ H: 2, Hkv: 1, M: 37, N: 45, D, Dv, causal: true }));
  all(cases(HEAD_DIMS));
  all(cases(MORE_HEAD_DIMS).map((one) => ({ ...one, variant: "8x32" })));
});

describe("causal", () => {
  all(LENGTHS.map(([M, N]) => ({ H: 2, M, N, D: 64, causal: true })));
  all([
    { M: 40, N: 70, D: 64, causal: "top-left" },
    { M: 70, N: 40, D: 64, causal: "top-left" },
    { M: 70, N: 100, D: 64, causal: true, queryOffset: 17 },
    { M: 70, N: 100, D: 64, causal: true, queryOffset: -33 },
    { M: 70, N: 100, D: 64, causal: true, queryOffset: -70 }, // every row is empty
    { M: 70, N: 100, D: 64, causal: true, queryOffset: 1000 },
    { B: 3, M: 66, N: 90, D: 64, causal: true, queryOffset: [-70, 0, 24] },
  ]);
});

describe("key lengths", () => {
  all([
    { B: 5, H: 2, M: 40, N: 70, D: 64, kvLengths: [70, 0, 1, 32, 33] },
    { B: 4, H: 2, M: 40, N: 70, D: 64, kvLengths: [70, 0, 40, 39], causal: true },
    { B: 2, H: 2, M: 40, N: 70, D: 64, kvLengths: [64, 50], causal: "top-left" },
    { B: 2, H: 2, M: 40, N: 70, D: 64, kvLengths: [64, 50], causal: true, queryOffset: [3, 60] },
  ]);
});

describe("heads", () => {
  all([
    { B: 2, H: 6, Hkv: 2, M: 33, N: 40, D: 64 },
    { B: 2, H: 5, Hkv: 1, M: 33, N: 40, D: 64, causal: true },
  ]);
});

describe("layouts", () => {
  all([
    { B: 2, H: 3, M: 33, N: 40, D: 64, layout: "bmhd", causal: true },
    { B: 2, H: 4, Hkv: 2, M: 33, N: 40, D: 5, Dv: 6, layout: "bmhd" },
  ]);
});

describe("inputs", () => {
  all([
    // the deviation of scores is 2,500, and the largest is 10^4: almost one key decides a row
    { H: 2, M: 65, N: 130, D: 64, spread: 50 },
    { H: 2, M: 65, N: 130, D: 64, spread: 50, causal: true },
    { H: 2, M: 65, N: 130, D: 64, spread: 100, scale: 1e-3 }, // 10^5 and more before the scale
    { H: 2, M: 65, N: 130, D: 64, scale: 0 },
    { H: 2, M: 65, N: 130, D: 64, scale: -2 },
    { H: 2, M: 65, N: 130, D: 64, spread: 1e-6 },
  ]);
  it("a constant v comes back", async () => {
    const device = await testDevice();
    const make = (seed: number) =>
      tensor(device, [1, 1, 70, 64], { data: normal(seed, 70 * 64, 3) });
    const v = tensor(device, [1, 1, 70, 64], { data: new Float32Array(70 * 64).fill(2.5) });
    const { output } = await attention(make(1), make(2), v, { causal: true });
    for (const value of await output.read()) expect(Math.abs(value - 2.5)).toBeLessThan(2e-6);
  });
});

describe("the same bits", () => {
  const shape = [2, 3, 77, 64];
  const inputs = (device: GPUDevice, deviation: number) =>
    [1, 2, 3].map((seed) =>
      tensor(device, shape, { data: normal(seed, product(shape), deviation) }),
    );

  it("come from the same inputs, every time", async () => {
    const device = await testDevice();
    const [q, k, v] = inputs(device, 2);
    const first = await (await attention(q, k, v, { causal: true })).output.read();
    for (let again = 0; again < 5; again++) {
      expect(await (await attention(q, k, v, { causal: true })).output.read()).toEqual(first);
    }
  });
  it("come from one dispatch and from many", async () => {
    const device = await testDevice();
    const [q, k, v] = inputs(device, 2);
    const whole = await (await attention(q, k, v)).output.read();
    // There are 12 workgroups of half a million operations each.
    for (const maxDispatchFlops of [1, 1.5e6, 3e6]) {
      expect(await (await attention(q, k, v, { maxDispatchFlops })).output.read()).toEqual(whole);
    }
  });
});

describe("devices", () => {
  it("with the default limits of WebGPU run what fits them", async () => {
    const device = await plainDevice();
    expect(device.limits.maxComputeWorkgroupStorageSize).toBe(16384);
    for (const problem of [
      { H: 2, M: 65, N: 97, D: 64, causal: true }, // of all tiles the nearest to the limit
      ...breadth({ H: 2, Hkv: 1, M: 65, N: 97, D: 256, causal: true }),
    ]) {
      await runCase(device, problem);
    }
    device.destroy();
  });
  it("fold grids that are longer than a dimension may be", async () => {
    // Seven workgroups a dimension stand in for 65,535, which take minutes on a software adapter.
    const device = withLimits(await testDevice(), { maxComputeWorkgroupsPerDimension: 7 });
    for (const maxDispatchFlops of [2 ** 36, 1.5e6]) {
      await runCase(device, { B: 2, H: 5, M: 90, N: 40, D: 64, maxDispatchFlops });
    }
  });
  it("take grids beyond 65,535 workgroups", async () => {
    // 65,600 heads of one query and one key, on the rung without barriers: the output is v.
    const device = await testDevice();
    const heads = 65_600;
    const data = normal(5, heads * 4);
    const [q, k, v] = [1, 2, 3].map(() => tensor(device, [1, heads, 1, 4], { data }));
    const output = tensor(device, [1, heads, 1, 4], {
      data: new Float32Array(heads * 4).fill(Number.NaN),
    });
    const plan = await LADDER[1].plan(device, { q, k, v, output });
    const encoder = device.createCommandEncoder();
    plan.encode(encoder);
    device.queue.submit([encoder.finish()]);
    expect(await output.read()).toEqual(data);
    for (const used of [q, k, v, output, plan]) used.destroy();
  });
  it("that are lost reject with device-lost", async () => {
    const device = await newDevice();
    const [q, k, v] = [1, 2, 3].map((seed) =>
      tensor(device, [1, 1, 4, 4], { data: normal(seed, 16) }),
    );
    device.destroy();
    await device.lost;
    await expect(attention(q, k, v)).rejects.toMatchObject({
      name: "FoveaError",
      code: "device-lost",
    });
  });
});
