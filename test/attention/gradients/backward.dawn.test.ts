// The gradients of attention against the float64 reference: every tile, every way in which scores
// can be masked and changed, every storage.

import { describe, expect, it } from "vitest";
import { attention, attentionBackward, planAttentionBackward, tensor } from "../../../src/index.ts";
import { BACKWARD_TILES } from "../../../src/kernels/gradients/backward_tiles.ts";
import {
  attention as attention64,
  attentionBackward as reference,
} from "../../../src/reference/index.ts";
import { normal } from "../../../src/reference/random.ts";
import { type BackwardCase, runBackwardCase } from "../../support/backward_cases.ts";
import { breadth } from "../../support/breadth.ts";
import { title } from "../../support/cases.ts";
import { expectClose } from "../../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../../support/device.ts";
import { expectError } from "../../support/errors.ts";

failOnGpuErrors();

/** The tile of cases that name none: the fastest to compile of those that GPUs take, too. */
const TILE = "8x32";

function cases(what: string, problems: readonly BackwardCase[]): void {
  describe(what, () => {
    for (const { variant = TILE, ...of } of problems) {
      const problem = { ...of, variant };
      it(title(problem), async () => runBackwardCase(await testDevice(), problem));
    }
  });
}

const SMALL = { H: 2, D: 16 } as const;

// One kernel for these: lengths and positions are no constants.
cases("sizes and positions", [
  { ...SMALL, M: 1, N: 1 },
  { ...SMALL, M: 37, N: 70, dLse: true },
  { ...SMALL, B: 2, H: 4, Hkv: 2, M: 33, N: 65, causal: true },
  { ...SMALL, H: 3, Hkv: 1, M: 70, N: 20, causal: true }, // rows without a key
  { ...SMALL, M: 40, N: 40, window: [5, 3] },
  { ...SMALL, M: 50, N: 90, causal: true, window: [20, 0], sinkTokens: 3 },
  { ...SMALL, M: 45, N: 45, causal: true, attentionChunk: 16, sinkTokens: 2 },
  { ...SMALL, M: 20, N: 300, queryOffset: 100, causal: true, layout: "bmhd" },
  { ...SMALL, M: 9, N: 31, scale: -0.7, spread: 3, gradientSpread: 1e3 },
  { ...SMALL, M: 9, N: 40, spread: 30, valueSpread: 1e-3, gradientSpread: 1e-3 },
  { ...SMALL, M: 37, N: 70, maxDispatchFlops: 1000 },
  { ...SMALL, M: 9, N: 20, scale: 2 ** 70, spread: 1e-10 },
]);
cases("entries of different lengths", [
  {
    ...SMALL,
    B: 3,
    M: 40,
    N: 70,
    qLengths: [40, 7, 0],
    kvLengths: [70, 0, 33],
    causal: true,
    poison: true,
    hidden: true,
    dLse: true,
  },
  { ...SMALL, B: 2, M: 0, N: 5, qLengths: [0, 0], kvLengths: [3, 0] }, // gradients of keys are 0
  {
    H: 4,
    Hkv: 2,
    D: 16,
    M: 60,
    N: 90,
    cuSeqlensQ: [0, 5, 5, 40, 57],
    cuSeqlensKv: [0, 40, 45, 45, 80],
    causal: true,
    poison: true,
  },
]);
cases("head dims", [
  { H: 1, M: 10, N: 35, D: 3, Dv: 17, given: true },
  { H: 1, M: 10, N: 35, D: 40, Dv: 8, given: true },
]);
cases("scores far from 0, whose log-sum-exp says less than their sum", [
  { H: 1, M: 2, N: 1, D: 24, spread: 30, dLse: true, given: true, variant: "8x32" },
  { H: 1, M: 1, N: 27, D: 32, spread: 30, softcap: 50, seed: 985682, given: true, variant: "8x32" },
]);
cases("storage", [
  { ...SMALL, M: 20, N: 40, causal: true, dtype: ["f16", "bf16", "f16", "f32"], given: true },
  {
    ...SMALL,
    D: 6,
    M: 20,
    N: 40,
    dtype: ["bf16", "f16", "bf16", "f16"],
    layout: "bmhd",
    given: true,
  },
]);
cases("scores that are changed or masked", [
  { ...SMALL, M: 33, N: 50, softcap: 2, spread: 2, dropout: { p: 0.3, seed: 7 }, given: true },
  { ...SMALL, M: 20, N: 19, dropout: { p: 0.3, seed: 7, step: 9 }, onGpu: true },
  {
    ...SMALL,
    B: 2,
    M: 33,
    N: 50,
    bias: { axes: "HN", blocked: 0.2 },
    alibi: "BH",
    sinks: true,
    relativeBias: { buckets: 8 },
    given: true,
  },
  {
    ...SMALL,
    B: 2,
    M: 50,
    N: 33,
    causal: true,
    mask: { axes: "BMN", keep: 0.05 },
    temperature: "log",
    sinks: true,
    hidden: true,
    given: true,
  },
  { ...SMALL, M: 70, N: 66, maskFunction: "dilated", blockSize: [64, 32], given: true },
  {
    ...SMALL,
    M: 70,
    N: 66,
    maskFunction: "dilated",
    blockSize: [64, 32],
    relativeBias: { buckets: 8 },
    ofOptions: ["dRelativeBias"],
  },
]);
const TILED = { ...SMALL, H: 4, Hkv: 2, M: 70, N: 133, causal: true, given: true } as const;
const CHANGED = { softcap: 3, dropout: { p: 0.2, seed: 3 } } as const;
cases("tiles", [
  { ...TILED, variant: "16x4-quad", dLse: true },
  { ...TILED, variant: "8x4-quad", ...CHANGED },
  // Keys that are not finite, in a tile with some that are seen.
  {
    ...SMALL,
    B: 3,
    M: 40,
    N: 70,
    qLengths: [40, 7, 0],
    kvLengths: [70, 0, 33],
    poison: true,
    variant: "8x4-quad",
    given: true,
  },
  // Rows without a key have a log-sum-exp, that of their sink.
  {
    ...TILED,
    M: 150,
    N: 90,
    variant: "32x64",
    dLse: true,
    temperature: "plain",
    sinks: true,
    hidden: true,
  },
  { ...TILED, variant: "16x32", ...CHANGED },
  ...breadth<BackwardCase>(
    {
      H: 4,
      Hkv: 2,
      D: 16,
      M: 60,
      N: 90,
      causal: true,
      poison: true,
      variant: "8x4-quad",
      cuSeqlensQ: [0, 5, 5, 40, 57],
      cuSeqlensKv: [0, 40, 45, 45, 80],
    },
    { ...SMALL, M: 70, N: 66, variant: "8x4-quad", window: [9, 4], maxDispatchFlops: 1000 },
    { ...TILED, variant: "16x32" },
    ...["16x4-quad", "32x64"].map((variant) => ({ ...TILED, variant, ...CHANGED })),
    ...["8x4-quad", "32x64", "16x32"].map(
      (variant): BackwardCase => ({ ...TILED, H: 1, Hkv: 1, M: 40, N: 70, D: 128, variant }),
    ),
  ),
]);
it("has a case for every tile", () => {
  expect(BACKWARD_TILES.map(({ name }) => name)).toEqual([
    "16x4-quad",
    "8x4-quad",
    "32x64",
    "16x32",
    TILE,
  ]);
});

describe("gradients of attention", () => {
  const made = async (M: number, N: number, change = (_: Record<string, Float32Array>) => {}) => {
    const device = await testDevice();
    const data = {
      q: normal(1, M * 16),
      k: normal(2, N * 16),
      v: normal(3, N * 16),
      dOutput: normal(4, M * 16),
    };
    change(data);
    const of = (name: keyof typeof data, rows: number) =>
      tensor(device, [1, 1, rows, 16], { data: data[name] });
    return { q: of("q", M), k: of("k", N), v: of("v", N), dOutput: of("dOutput", M) };
  };
  const gradients = async (
    tensors: Awaited<ReturnType<typeof made>>,
    causal: boolean,
    variant?: string,
  ) => {
    const { q, k, v, dOutput } = tensors;
    const { output, lse } = await attention(q, k, v, { causal, lse: true });
    if (!lse) throw new Error("there is no lse");
    const options = { causal, output, lse, dOutput, ...(variant && { variant }) };
    const { dQ, dK, dV } = await attentionBackward(q, k, v, options);
    return { dQ: await dQ.read(), dK: await dK.read(), dV: await dV.read() };
  };

  it("are the same bits every time", async () => {
    const tensors = await made(40, 70);
    const first = await gradients(tensors, true);
    for (let run = 0; run < 50; run++) expect(await gradients(tensors, true)).toEqual(first);
  });

  it.each([TILE, "8x4-quad"])(
    "are exact for scores of which the log-sum-exp loses digits (variant %s)",
    async (variant) => {
      // Scores are exact: 1024 and up to 5 more. The log-sum-exp is rounded to 2^-13.
      const device = await testDevice();
      const M = 24;
      const N = 40;
      const first = (rows: number, value: (row: number) => number, data: Float32Array) => {
        for (let row = 0; row < rows; row++) data[row * 16] = value(row);
        return { data, shape: [1, 1, rows, 16] };
      };
      const q = first(M, () => 1024, new Float32Array(M * 16));
      const k = first(N, (row) => 1 + (row % 11) / 2048, normal(2, N * 16));
      const v = { data: normal(3, N * 16), shape: [1, 1, N, 16] };
      const dOutput = { data: normal(4, M * 16), shape: [1, 1, M, 16] };
      const options = { causal: true, scale: 1 } as const;
      const [qGpu, kGpu, vGpu, given] = [q, k, v, dOutput].map(({ shape, data }) =>
        tensor(device, shape, { data }),
      );
      const forward = attention64(q, k, v, options);
      const output = tensor(device, dOutput.shape, { data: forward.output });
      const lse = tensor(device, [1, 1, M], { data: forward.lse });
      const backward = { ...options, output, lse, dOutput: given, variant };
      const found = await attentionBackward(qGpu, kGpu, vGpu, backward);
      const f64 = reference(q, k, v, { ...options, dOutput: dOutput.data });
      for (const name of ["dQ", "dK", "dV"] as const) {
        const both = { f64: f64[name], plain: f64[name] };
        expectClose(name, await found[name].read(), both, found[name].shape);
      }
    },
  );

  it.each([TILE, "8x4-quad"])("keep a NaN to what sees it (variant %s)", async (variant) => {
    // Under a causal mask query 10 sees keys up to 10, and key 25 is seen from query 25 on.
    const rows = (values: ArrayLike<number>) =>
      Array.from({ length: 40 }, (_, row) =>
        Array.from(values)
          .slice(row * 16, row * 16 + 16)
          .some(Number.isNaN),
      );
    const from = (first: number) => Array.from({ length: 40 }, (_, row) => row >= first);
    const until = (end: number) => Array.from({ length: 40 }, (_, row) => row < end);
    for (const name of ["k", "v"] as const) {
      const spoilt = await made(40, 40, (data) =>
        data[name].fill(Number.NaN, 25 * 16 + 3, 25 * 16 + 4),
      );
      const { dQ } = await gradients(spoilt, true, variant);
      expect(rows(dQ), `d_q of a NaN in ${name}`).toEqual(from(25));
    }
    for (const name of ["q", "dOutput"] as const) {
      const spoilt = await made(40, 40, (data) =>
        data[name].fill(Number.NaN, 10 * 16 + 3, 10 * 16 + 4),
      );
      const { dK, dV } = await gradients(spoilt, true, variant);
      expect(rows(dK), `d_k of a NaN in ${name}`).toEqual(until(11));
      expect(rows(dV), `d_v of a NaN in ${name}`).toEqual(until(11));
    }
  });

  it("have empty axes", async () => {
    const device = await testDevice();
    const empty = (rows: number) => tensor(device, [1, 2, rows, 8], { data: normal(5, rows * 16) });
    const noKeys = await attentionBackward(empty(3), empty(0), empty(0), {
      output: empty(3),
      lse: tensor(device, [1, 2, 3], { data: new Float32Array(6).fill(Number.NEGATIVE_INFINITY) }),
      dOutput: empty(3),
    });
    expect([...(await noKeys.dQ.read())]).toEqual(new Array(48).fill(0));
    const noQueries = await attentionBackward(empty(0), empty(3), empty(3), {
      output: empty(0),
      lse: tensor(device, [1, 2, 0]),
      dOutput: empty(0),
    });
    expect([...(await noQueries.dK.read())]).toEqual(new Array(48).fill(0));
    expect([...(await noQueries.dV.read())]).toEqual(new Array(48).fill(0));
  });

  it("refuse what is wrong before the GPU sees it", async () => {
    const device = await testDevice();
    const q = { shape: [1, 2, 5, 8] };
    const problem = { q, k: q, v: q };
    const refused: [object, string][] = [
      [
        { dQ: { shape: [1, 2, 5, 9] } },
        "attentionBackward: dQ must be [1, 2, 5, 8], got [1, 2, 5, 9].",
      ],
      [
        { lse: { shape: [1, 2, 6] } },
        "attentionBackward: lse must be [1, 2, 5] [B, H, M], got [1, 2, 6].",
      ],
      [
        { variant: "7x7" },
        "no variant 7x7 of the gradients; there are 16x4-quad, 8x4-quad, 32x64, 16x32, 8x32.",
      ],
      [
        { cache: {} },
        "attentionBackward: keys in a cache have no gradients. Give k and v of the whole sequence as tensors, and causal: true where each token saw those before it.",
      ],
    ];
    for (const [change, message] of refused) {
      const work = () => planAttentionBackward(device, { ...problem, ...change });
      await expectError(work, "argument", message);
    }
  });
});
