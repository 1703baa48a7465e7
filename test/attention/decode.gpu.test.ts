// The decode kernel: few queries, packed heads, split keys, in both shapes, with every option.

import { describe, expect, it } from "vitest";
import { attention, planAttention, tensor } from "../../src/index.ts";
import {
  chooseDecodeTile,
  chooseKvSplits,
  DECODE_SHAPES,
  decodeGrid,
  decodeWorkgroupBytes,
} from "../../src/kernels/decode.ts";
import { normal } from "../../src/reference/random.ts";
import { breadth } from "../support/breadth.ts";
import { type Case, runCase, title } from "../support/cases.ts";
import { failOnGpuErrors, overridden, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { idle } from "../support/idle.ts";

failOnGpuErrors();

const ALL = DECODE_SHAPES.map(({ name }) => name);
/** The shapes of software adapters, with barriers and without. */
const TWO = ["decode-4-quad", "decode-16"];
/** Tests of breadth also have the shapes of GPUs, which share the keys among more lanes. */
const SHAPES = [...TWO, ...breadth("decode-64", "decode-64-quad")];
/** Kernels of many quads find scores as those of one do, and differ in what comes after. */
const FORMS = [...TWO, ...breadth("decode-64")];

function cases(
  what: string,
  problems: readonly Case[],
  variants: readonly string[] = SHAPES,
): void {
  describe(what, () => {
    for (const variant of variants) {
      for (const problem of problems) {
        const whole = { ...problem, variant };
        it(title(whole), async () => runCase(await testDevice(), whole));
      }
    }
  });
}

// Each shape compiles one kernel for these: two packed rows of head dim 16.
const SMALL = { H: 2, Hkv: 1, M: 1, D: 16 };
cases(
  "keys",
  [
    ...[1, 3, 15, 16, 17, 63, 64, 65, 127, 128, 129, 1021].map((N) => ({ ...SMALL, N })),
    { ...SMALL, N: 0 },
    { ...SMALL, B: 3, N: 300, kvLengths: [300, 0, 77], poison: true, causal: true },
    // key heads that are neither the batch entry nor the query head
    { ...SMALL, B: 2, H: 4, Hkv: 2, N: 70 },
  ],
  ALL,
);

cases(
  "splits of the keys",
  [
    ...[1, 2, 3, 5, 100].map((kvSplits) => ({ ...SMALL, N: 700, kvSplits })),
    { ...SMALL, B: 3, N: 700, kvSplits: 4, kvLengths: [700, 3, 65] },
    { ...SMALL, N: 700, window: [300, 0], causal: true, kvSplits: 3, sinkTokens: 70 },
    { ...SMALL, N: 2000, maxDispatchFlops: 1000 },
  ],
  ALL,
);

cases("few queries", [
  { H: 2, M: 2, N: 300, D: 16, causal: true },
  { H: 1, M: 2, N: 3, D: 16, causal: true },
  { H: 1, M: 2, N: 1, D: 16, causal: true }, // a row without a key
  {
    B: 2,
    H: 2,
    Hkv: 1,
    M: 1,
    N: 200,
    D: 16,
    queryOffset: [150, -1],
    causal: true,
    window: [20, 5],
    layout: "bmhd",
  },
  {
    B: 1,
    H: 2,
    M: 7,
    N: 300,
    D: 16,
    cuSeqlensQ: [0, 2, 2, 3, 7],
    cuSeqlensKv: [0, 100, 130, 130, 300],
    causal: true,
  },
  {
    B: 2,
    H: 2,
    M: 2,
    N: 90,
    D: 16,
    qLengths: [1, 2],
    kvLengths: [40, 90],
    poison: true,
    causal: true,
  },
]);

cases(
  "packed rows",
  [
    { H: 8, Hkv: 2, M: 4, N: 200, D: 16, causal: true }, // 16 rows
    { H: 3, Hkv: 1, M: 7, N: 200, D: 16, causal: true }, // 21 rows, in two tiles
  ],
  FORMS,
);

const FEATURES: Partial<Case> = { alibi: "BH", sinks: true, softcap: 3, rowMax: true };
cases("scores of all shapes", [
  { ...SMALL, B: 2, N: 200, ...FEATURES, onGpu: true },
  {
    ...SMALL,
    B: 2,
    N: 200,
    ...FEATURES,
    onGpu: true,
    causal: true,
    kvLengths: [1, 200],
    spread: 10,
  },
]);
cases(
  "scores",
  [
    {
      ...SMALL,
      N: 200,
      bias: { axes: "HMN", blocked: 0.5 },
      dropout: { p: 0.3, seed: 5 },
      poison: true,
    },
    {
      ...SMALL,
      N: 200,
      mask: { axes: "N", keep: 0.1 },
      relativeBias: { buckets: 8 },
      poison: true,
    },
  ],
  FORMS,
);
cases(
  "scores, of keys in splits",
  [
    {
      ...SMALL,
      B: 2,
      N: 200,
      ...FEATURES,
      onGpu: true,
      kvSplits: 3,
      causal: true,
      kvLengths: [1, 200],
    },
  ],
  ["decode-4-quad"],
);
cases(
  "functions",
  [
    { ...SMALL, N: 200, scoreFunction: "sloped", maskFunction: "dilated" },
    { ...SMALL, N: 200, scoreFunction: "hiding" },
  ],
  ["decode-4-quad", "decode-16"],
);

cases(
  "head dims",
  [
    { H: 2, Hkv: 1, M: 1, N: 90, D: 5, Dv: 7 },
    { H: 1, M: 1, N: 90, D: 40, Dv: 80 },
  ],
  FORMS,
);
cases("values in two shares", [{ H: 1, M: 1, N: 90, D: 16, Dv: 260 }], ["decode-4-quad"]);
cases("wide heads", [{ H: 1, M: 1, N: 90, D: 576, Dv: 512 }], ["decode-16", "decode-64"]);
cases(
  "storage",
  [{ ...SMALL, N: 90, dtype: ["bf16", "f16", "bf16", "f16"] }],
  ["decode-4-quad", "decode-64"],
);

describe("the choice", () => {
  const gpu = { workgroupBytes: 16384, software: false };

  it("reads K and V once for up to 8 packed rows in 16 KiB, and 16 in 32 KiB", () => {
    const tiles = (rows: number, headDim: number, workgroupBytes: number) =>
      decodeGrid(chooseDecodeTile(headDim, rows, { ...gpu, workgroupBytes }), headDim, rows).qTiles;
    expect([1, 2, 3, 8, 9].map((rows) => tiles(rows, 64, 16384))).toEqual([1, 1, 1, 1, 2]);
    expect([1, 8, 16, 17].map((rows) => tiles(rows, 64, 32768))).toEqual([1, 1, 1, 2]);
    expect([1, 8, 16, 17].map((rows) => tiles(rows, 128, 32768))).toEqual([1, 1, 1, 2]);
  });

  it("never takes more workgroup memory than there is", () => {
    for (const headDim of [1, 64, 128, 256, 576, 2048]) {
      for (const software of [true, false]) {
        const tile = chooseDecodeTile(headDim, 16, { workgroupBytes: 16384, software });
        expect(decodeWorkgroupBytes(tile, headDim)).toBeLessThanOrEqual(16384);
      }
    }
  });

  it("splits keys as long as a workgroup has enough of them", () => {
    expect(chooseKvSplits(8192, 8, false)).toBe(64);
    expect(chooseKvSplits(1024, 8, false)).toBe(8);
    expect(chooseKvSplits(8192, 1024, false)).toBe(1);
    expect(chooseKvSplits(8192, 1, true)).toBe(8);
    expect(chooseKvSplits(100, 1, true)).toBe(1);
    expect(chooseKvSplits(0, 0, false)).toBe(1);
  });

  it("takes quads on software adapters that have them, for heads up to 256", () => {
    const software = { workgroupBytes: 16384, software: true };
    const chosen = (
      headDim: number,
      limits: Parameters<typeof chooseDecodeTile>[2],
      name?: string,
    ) => {
      const { rows, ...tile } = chooseDecodeTile(headDim, 16, limits, name);
      return `${tile.name} ${rows}`;
    };
    expect(chosen(64, { ...software, subgroups: true })).toBe("decode-4-quad 8");
    expect(chosen(128, { ...software, subgroups: true })).toBe("decode-4-quad 4");
    expect(chosen(256, { ...software, subgroups: true })).toBe("decode-4-quad 2");
    expect(chosen(257, { ...software, subgroups: true })).toMatch(/^decode-16/);
    expect(chosen(64, software)).toMatch(/^decode-16/);
    expect(chosen(64, { ...gpu, subgroups: true })).toMatch(/^decode-64 /);
    expect(chosen(64, { ...gpu, subgroups: true }, "decode-64-quad")).toBe("decode-64-quad 4");
  });

  it("says why a shape can't run", async () => {
    const device = await testDevice();
    const plan = (D: number, on: GPUDevice) => () => {
      const q = { shape: [1, 1, 1, D] };
      const k = { shape: [1, 1, 9, D] };
      return planAttention(on, { q, k, v: k, variant: "decode-4-quad" });
    };
    await expectError(
      plan(16, overridden(device, { features: new Set() })),
      "limit",
      "variant decode-4-quad needs the feature subgroups, which the device does not have; take another.",
    );
    await expectError(
      plan(257, device),
      "limit",
      "variant decode-4-quad takes head dims up to 256, and this is 257; take another.",
    );
  });

  it("is the decode kernel for up to 16 queries, on software adapters with quads for up to 8, and states its workspace", async () => {
    const device = idle(await testDevice());
    const tiled = overridden(device, { features: new Set() });
    const specs = (M: number) => ({ q: { shape: [1, 2, M, 16] }, k: { shape: [1, 1, 500, 16] } });
    const plan = (M: number, more = {}, on = device) =>
      planAttention(on, { ...specs(M), v: { shape: [1, 1, 500, 16] }, ...more });
    const [one, sixteen, seventeen] = await Promise.all([
      plan(1, { kvSplits: 3 }),
      plan(16, {}, tiled),
      plan(17),
    ]);
    const quads = device.features.has("subgroups") && device.adapterInfo.isFallbackAdapter;
    for (const [M, more] of [
      [8, {}],
      [9, {}],
      [16, { kvSplits: 2 }],
    ] as const) {
      const made = await plan(M, more);
      expect(made.kernel, `${M} queries`).toMatch(quads && M === 9 ? /^forward/ : /^decode/);
      made.destroy();
    }
    expect(one.kernel).toMatch(quads ? /^decode-4-quad 2$/ : /^decode-\d+ 2$/);
    expect(one.workspaceBytes).toBe(2 * 3 * (16 + 4) * 4);
    expect(sixteen.kernel).toMatch(/^decode/);
    expect(seventeen.kernel).toMatch(/^forward/);
    for (const made of [one, sixteen, seventeen]) made.destroy();
    await expectError(
      () => plan(1, { kvSplits: 0 }),
      "argument",
      "attention: kvSplits must be a whole number from 1 to 4096, got 0.",
    );
  });
});

it("splits the keys that a window leaves, and not those that nobody sees", async () => {
  const device = idle(await testDevice());
  const rows = (heads: number, count: number) => ({ shape: [1, heads, count, 16] });
  const tokens = {
    q: rows(2, 1),
    k: rows(1, 4000),
    v: rows(1, 4000),
    causal: true,
    variant: "decode-16",
  };
  const plans = [
    await planAttention(device, tokens),
    await planAttention(device, { ...tokens, window: [20, 0] }),
  ];
  const [all, few] = plans.map(({ workspaceBytes }) => workspaceBytes);
  expect(few).toBe(2 * (16 + 4) * 4); // one split
  expect(all).toBeGreaterThanOrEqual(4 * few);
  for (const plan of plans) plan.destroy();
});

it("gives an entry the same bits alone and in a batch, with a fixed number of splits", async () => {
  const device = await testDevice();
  const make = (what: number, shape: number[]) =>
    tensor(device, shape, {
      data: normal(
        what,
        shape.reduce((a, b) => a * b, 1),
      ),
    });
  const q = make(1, [4, 2, 1, 16]);
  const k = make(2, [4, 1, 700, 16]);
  const v = make(3, [4, 1, 700, 16]);
  const options = { kvSplits: 5, lse: true };
  const all = await attention(q, k, v, options);
  const one = await attention(q.slice(0, 2, 3), k.slice(0, 2, 3), v.slice(0, 2, 3), options);
  expect(await one.output.read()).toEqual(await all.output.slice(0, 2, 3).read());
  expect(await one.lse?.read()).toEqual(await all.lse?.slice(0, 2, 3).read());
  for (const used of [q, k, v, all.output, all.lse, one.output, one.lse]) used?.destroy();
});
