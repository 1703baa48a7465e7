// Scores, probabilities and best keys on request, against the float64 reference: every stage and
// feature, chosen heads and rows, and rows that see nothing.

import { describe, expect, it } from "vitest";
import {
  attentionWeights,
  planAttentionWeights,
  planTopKKeys,
  probabilityFunction,
  tensor,
  topKKeys,
} from "../../src/index.ts";
import { attentionScores } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { title } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { type Asked, runTopKeys, runWeights, type WeightsCase } from "../support/weights.ts";

failOnGpuErrors();

const small = { D: 8 } as const;
type Problem = Partial<WeightsCase> & { M: number; N: number };

const STAGES: readonly Asked[] = [
  ...(["raw", "capped", "scores", "probabilities"] as const).map((stage) => ({ stage })),
  { mean: true },
];
/** With a known log-sum-exp another kernel runs, with one of attention before it. */
const KNOWN: readonly Asked[] = [...STAGES, { lse: true }, { lse: true, mean: true }];

const weights = (problems: readonly Problem[], asked = STAGES) => {
  for (const problem of problems) {
    it(title(problem as WeightsCase), async () => {
      for (const one of asked) await runWeights(await testDevice(), { ...small, ...problem }, one);
    });
  }
};
const topKeys = (problems: readonly (Problem & { count?: number; exact?: boolean })[]) => {
  for (const { count = 5, exact, ...problem } of problems) {
    it(`${count} keys of ${title(problem as WeightsCase)}${exact ? ", ties" : ""}`, async () =>
      runTopKeys(await testDevice(), { ...small, ...problem }, count, exact));
  }
};

const CU = { cuSeqlensQ: [0, 17, 17, 60, 61], cuSeqlensKv: [0, 40, 55, 55, 90] };
const COMPANY: Partial<WeightsCase> = {
  window: [40, 9],
  softcap: 8,
  alibi: "BH",
  relativeBias: { buckets: 8 },
  sinks: true,
  mask: { axes: "HMN" },
  bias: { axes: "BMN", blocked: 0.1 },
  dropout: { p: 0.25, seed: 9 },
  scoreFunction: "sloped",
  maskFunction: "heads",
};

describe("weights", () => {
  weights([
    { M: 1, N: 1 },
    { M: 70, N: 37, causal: true, attentionChunk: 16 }, // rows that see nothing
    { M: 70, N: 137, window: [3, 0], sinkTokens: 34 },
    {
      H: 3,
      M: 70,
      N: 37,
      layout: "bmhd",
      causal: true,
      sinks: true,
      heads: [2, 0],
      rows: [69, 3, 3, 0, 40],
    },
    {
      B: 3,
      H: 2,
      M: 40,
      N: 70,
      qLengths: [40, 31, 0],
      kvLengths: [20, 70, 0],
      softcap: 3,
      spread: 3,
      onGpu: true,
    },
    { H: 2, M: 100, N: 300, maskFunction: "causal", blockSize: [64, 96] },
    {
      H: 2,
      M: 100,
      N: 300,
      maskFunction: "causal",
      blockSize: [64, 64],
      rows: [99, 0, 63, 64, 5],
      queryOffset: 11,
    },
    { M: 37, N: 70, mask: { axes: "MN", bits: true }, bias: { axes: "MN", blocked: 1 } },
    { H: 2, M: 37, N: 70, scoreFunction: "hiding" },
    { M: 20, N: 90, D: 136, spread: 3 },
    { M: 5, N: 40, D: 5, dtype: "f16" },
    { H: 2, M: 0, N: 5 },
    { H: 2, M: 5, N: 0 },
  ]);
  weights(
    [
      { B: 2, H: 4, Hkv: 2, M: 33, N: 71, causal: true },
      { M: 20, N: 1100, maxDispatchFlops: 1 }, // several shares of the keys, a dispatch each
      {
        H: 2,
        M: 61,
        N: 90,
        ...CU,
        qLengths: [9, 0, 43, 1],
        causal: true,
        heads: [1, 0],
        rows: [40, 2, 16],
      },
      {
        B: 2,
        H: 4,
        Hkv: 2,
        M: 40,
        N: 90,
        causal: true,
        kvLengths: [90, 61],
        qLengths: [40, 30],
        ...COMPANY,
      },
    ],
    KNOWN,
  );
});

describe("best keys", () => {
  topKeys([
    { M: 1, N: 1, count: 1 },
    { B: 2, H: 4, Hkv: 2, M: 33, N: 71, causal: true },
    { M: 70, N: 137, window: [3, 0], sinkTokens: 34, count: 40 },
    // rows that see few keys, or none
    { M: 70, N: 37, causal: true, attentionChunk: 16, count: 64 },
    { M: 40, N: 300, count: 40, scale: 1, exact: true },
    { M: 40, N: 300, count: 64, scale: 1, causal: true, exact: true },
    { M: 20, N: 90, count: 7, scale: 0, exact: true }, // all alike
    { H: 3, M: 40, N: 65, layout: "bmhd", heads: [2, 0], rows: [39, 3, 3, 0, 17] },
    { H: 2, M: 61, N: 90, ...CU, causal: true, rows: [42, 0, 16] },
    {
      H: 2,
      M: 100,
      N: 300,
      maskFunction: "causal",
      blockSize: [64, 64],
      rows: [99, 0, 63, 64, 5],
      queryOffset: 11,
    },
    {
      B: 2,
      H: 4,
      Hkv: 2,
      M: 40,
      N: 90,
      causal: true,
      kvLengths: [90, 61],
      qLengths: [40, 30],
      ...COMPANY,
      count: 64,
    },
    // keys grow better, so that every tile changes the lists
    { M: 9, N: 1000, count: 64, alibi: "H" },
    { H: 2, M: 5, N: 0 },
  ]);
});

describe("keys that a query does not see", () => {
  it("reach no score, whatever they hold", async () => {
    const device = await testDevice();
    const M = 40;
    const N = 100;
    const D = 8;
    const kvLengths = [61];
    const q = normal(1, M * D);
    const k = normal(2, N * D);
    const poisoned = k.map((x, i) =>
      i / D >= 20 && i / D < 30 ? Number.NaN : i / D >= 61 ? 3e38 : x,
    );
    const mask = Uint8Array.from({ length: N }, (_, j) => Number(j < 20 || j >= 30));
    const gpu = {
      q: tensor(device, [1, 1, M, D], { data: q }),
      k: tensor(device, [1, 1, N, D], { data: poisoned }),
      mask: tensor(device, [N], { dtype: "u8", data: mask }),
    };
    const options = { mask: gpu.mask, kvLengths, causal: true } as const;
    const expected = (stage: "scores" | "probabilities") =>
      attentionScores(
        { data: q, shape: [1, 1, M, D] },
        { data: k, shape: [1, 1, N, D] },
        { stage, causal: true, kvLengths, mask: { data: mask, shape: [N] } },
      );
    for (const stage of ["scores", "probabilities"] as const) {
      const found = await (await attentionWeights(gpu.q, gpu.k, { ...options, stage })).read();
      expected(stage).forEach((value, index) => {
        if (Number.isFinite(value)) expect(found[index]).toBeCloseTo(value, 4);
        else expect(found[index]).toBe(value);
      });
    }
    const best = await topKKeys(gpu.q, gpu.k, { ...options, k: 64 });
    for (const key of await best.indices.read())
      expect((key >= -1 && key < 20) || (key >= 30 && key < 61)).toBe(true);
    expect([...(await best.weights.read())].every((p) => p >= 0 && p <= 1)).toBe(true);
    for (const one of [...Object.values(gpu), best.indices, best.weights]) one.destroy();
  });
});

describe("a probability function", () => {
  it("has every key of the used rows, also those that are not seen", async () => {
    const device = await testDevice();
    const B = 2;
    const H = 4;
    const M = 37;
    const N = 70;
    const D = 8;
    const q = normal(31, B * H * M * D);
    const k = normal(32, (B * H * N * D) / 2);
    const gains = [1, -0.5, 0.25, 3];
    const gpu = {
      q: tensor(device, [B, H, M, D], { data: q }),
      k: tensor(device, [B, H / 2, N, D], { data: k }),
      gains: tensor(device, [H], { data: gains }),
    };
    const probability = probabilityFunction(
      `fn probability(p: f32, at: Position) -> f32 {
  return gains[at.head] * p * p + step * f32(at.position - i32(at.kv_idx)) + f32(at.batch);
}`,
      { captures: { gains: gpu.gains, step: 0.125 } },
    );
    const options = { causal: true, qLengths: [30, 37], kvLengths: [70, 61] } as const;
    const heads = [3, 0];
    const rows = [36, 2, 2, 29]; // biome-ignore format: two lists
    const given = { ...options, heads, rows, probabilityFunction: probability };
    const numbers = [0, 1].flatMap((b) =>
      heads.flatMap((h) => rows.map((m) => (b * H + h) * M + m)),
    );
    const expected = (precision: "f64" | "f32") =>
      attentionScores(
        { data: q, shape: [B, H, M, D] },
        { data: k, shape: [B, H / 2, N, D] },
        {
          ...options,
          rows: numbers,
          stage: "probabilities",
          precision,
          probabilityFunction: (p, { batch, head, position, kvIdx }) =>
            gains[head] * p * p + 0.125 * (position - kvIdx) + batch,
        },
      );
    const f64 = expected("f64");
    const plain = expected("f32");
    const weights = await attentionWeights(gpu.q, gpu.k, given);
    expectClose("weights", await weights.read(), { f64, plain }, [B, 2, 4, N]);
    const mean = await attentionWeights(gpu.q, gpu.k, { ...given, meanOverHeads: true });
    const meanOf = (of: Float64Array) =>
      Float64Array.from({ length: of.length / 2 }, (_, i) => {
        const at = Math.floor(i / (4 * N)) * 8 * N + (i % (4 * N));
        return (of[at] + of[at + 4 * N]) / 2;
      });
    expectClose("mean", await mean.read(), { f64: meanOf(f64), plain: meanOf(plain) }, [B, 4, N]);
    for (const one of [...Object.values(gpu), weights, mean]) one.destroy();
  });
});

describe("plans", () => {
  it("write where they are told, and nothing beside", async () => {
    const device = await testDevice();
    const shape = [1, 2, 20, 8];
    const [q, k] = [1, 2].map((seed) => tensor(device, shape, { data: normal(seed, 320) }));
    const memory = tensor(device, [4000], { data: new Float32Array(4000).fill(-777) });
    const output = memory.view({ shape: [1, 2, 3, 20], strides: [2000, 1000, 60, 2], offset: 7 });
    const options = { causal: true, rows: [4, 19, 0] } as const;
    const plan = await planAttentionWeights(device, { q, k, output, ...options });
    const best = await planTopKKeys(device, { q, k, count: 3, ...options });
    expect([plan.kernel, best.kernel]).toEqual(["weights", "top_keys"]);
    const indices = tensor(device, [1, 2, 3, 3], { dtype: "i32" });
    const values = tensor(device, [1, 2, 3, 3]);
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    plan.encode(pass);
    best.encode(pass, { indices, weights: values });
    pass.end();
    device.queue.submit([encoder.finish()]);
    const whole = await attentionWeights(q, k, options);
    expect(await output.read()).toEqual(await whole.read());
    expect((await memory.read()).filter((value) => value === -777)).toHaveLength(4000 - 120);
    const single = await topKKeys(q, k, { k: 3, ...options });
    expect(await indices.read()).toEqual(await single.indices.read());
    expect(await values.read()).toEqual(await single.weights.read());
    for (const one of [
      q,
      k,
      memory,
      whole,
      indices,
      values,
      single.indices,
      single.weights,
      plan,
      best,
    ])
      one.destroy();
  });
});
