// Numbers at the ends of f32, and beyond: NaN, scores near the largest and the lowest f32, scales,
// caps and sinks of any size, and sums over many keys.

import { describe, expect, it } from "vitest";
import {
  type AttentionOptions,
  attention,
  attentionWeights,
  mergeAttention,
  planAttention,
  planAttentionWeights,
  type Tensor,
  tensor,
  topKKeys,
} from "../../src/index.ts";
import {
  type ReferenceOptions,
  attention as reference,
  attentionScores as referenceScores,
  topKKeys as referenceTopK,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { type Case, product, title } from "../support/cases.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { expectSameNaN, runTainted } from "../support/nan.ts";

failOnGpuErrors();

const SMALL = { H: 2, M: 9, N: 70, D: 8 } as const;
/**
 * Decode kernels of few rows compile faster. Here, too, some rows see the last keys, and others
 * don't.
 */
const FEW = { ...SMALL, M: 4, N: 67 } as const;
const sizesOf = (variant: string) => (variant.startsWith("decode") ? FEW : SMALL);
const MODIFIED = {
  softcap: 5,
  alibi: "H",
  bias: { axes: "MN", blocked: 0.3 },
  sinks: true,
  rowMax: true,
} as const;
const NORMALIZED = {
  similarity: "cosine",
  mask: { axes: "HMN" },
  dropout: { p: 0.4, seed: 3 },
} as const;
/** Forward kernels with and without tiles, decoding with and without barriers. */
const VARIANTS = ["8x32", "8x4-quad", "decode-16", "decode-4-quad"] as const;

describe("a NaN that a row sees makes it NaN, and no other row", () => {
  const plain = VARIANTS.flatMap((variant): Case[] => [
    { ...sizesOf(variant), causal: true, rowMax: true, variant },
    // here a key that is seen weighs 0
    { ...sizesOf(variant), causal: true, rowMax: true, variant, scale: 100 },
  ]);
  const cases: readonly Case[] = [
    ...plain,
    ...["8x32", "8x4-quad", "decode-16"].map((variant) => ({
      ...sizesOf(variant),
      ...MODIFIED,
      variant,
    })),
    ...["8x32", "decode-4-quad"].map((variant) => ({
      ...sizesOf(variant),
      ...NORMALIZED,
      variant,
    })),
    ...["8x32", "8x4-quad"].map(
      (variant) => ({ ...SMALL, similarity: { kind: "additive" }, variant }) as const,
    ),
    { ...SMALL, M: 1, N: 300, variant: "decode-16", kvSplits: 3, rowMax: true, causal: true },
  ];
  it.each(cases.map((problem) => [title(problem), problem] as const))("%s", async (_, problem) => {
    await runTainted(await testDevice(), problem, 64);
  });

  it("in scores, probabilities and best keys", async () => {
    const device = await testDevice();
    const q = dense(1, [1, 2, 5, 8]);
    const k = dense(2, [1, 2, 9, 8]);
    q.data[2 * 8] = Number.NaN;
    k.data[(9 + 3) * 8] = Number.NaN;
    const options = { causal: true, softcap: 4 };
    const [qGpu, kGpu] = [q, k].map(({ shape, data }) => tensor(device, shape, { data }));
    for (const stage of ["raw", "scores", "probabilities"] as const) {
      const made = await attentionWeights(qGpu, kGpu, { ...options, stage });
      const want = referenceScores(q, k, { ...options, stage });
      const values = await made.read();
      expect(Array.from(values, Number.isNaN), stage).toEqual(Array.from(want, Number.isNaN));
      expect(Array.from(values, (x) => x === Number.NEGATIVE_INFINITY)).toEqual(
        Array.from(want, (x) => x === Number.NEGATIVE_INFINITY),
      );
      made.destroy();
    }
    const { indices, weights } = await topKKeys(qGpu, kGpu, { k: 3, ...options });
    const want = referenceTopK(q, k, 3, options);
    expect(Array.from(await indices.read())).toEqual(Array.from(want.indices));
    const got = (await weights.read()) as Float32Array;
    expectSameNaN("weights", got, want.weights, want.weights, [1, 2, 5, 3]);
    for (const used of [qGpu, kGpu, indices, weights]) used.destroy();
  });
});

describe("merged LSEs", () => {
  const LSE = [
    [0, Number.NaN, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY],
    [1, 1, 1, Number.POSITIVE_INFINITY],
    [2, 2, 2, Number.NEGATIVE_INFINITY],
  ];
  async function merged(infinityIsEmpty: boolean) {
    const device = await testDevice();
    const partials = LSE.map((data, i) => ({
      output: tensor(device, [1, 1, 4, 1], { data: [i, i, i, Number.NaN] }),
      lse: tensor(device, [1, 1, 4], { data }),
    }));
    const { output, lse } = await mergeAttention(partials, { infinityIsEmpty });
    return { output: Array.from(await output.read()), lse: Array.from(await lse.read()) };
  }
  const two = (1 + 2 * Math.E) / (1 + Math.E);
  it("of NaN and +Infinity make a row NaN", async () => {
    const { output, lse } = await merged(false);
    expect([output, lse].map((values) => values.map(Number.isNaN))).toEqual(
      new Array(2).fill([false, true, true, true]),
    );
  });
  it("of +Infinity are those of rows without keys, if the caller says so", async () => {
    const { output, lse } = await merged(true);
    expect([output, lse].map((values) => values.map(Number.isNaN))).toEqual(
      new Array(2).fill([false, true, false, false]),
    );
    expect(output[2]).toBeCloseTo(two, 6);
    expect(lse[2]).toBeCloseTo(Math.log(Math.E + Math.E ** 2), 6);
    expect([output[3], lse[3]]).toEqual([0, Number.NEGATIVE_INFINITY]);
  });
  it("take no other value for the option", async () => {
    const device = await testDevice();
    const one = { output: tensor(device, [1, 1, 1, 1]), lse: tensor(device, [1, 1, 1]) };
    await expectError(
      () => mergeAttention([one], { infinityIsEmpty: 1 as unknown as boolean }),
      "argument",
      "mergeAttention: infinityIsEmpty must be a boolean, got 1.",
    );
  });
});

describe("sums over many keys are exact to the last digits", () => {
  it.each(VARIANTS)("%s", async (variant) => {
    const device = await testDevice();
    const N = 20_000;
    const D = 8;
    // All keys have the same probability, which is not a round number, so that the errors of a
    // plain sum all have one sign.
    const k = new Float32Array(N * D).fill(0.9).fill(0, 0, 64 * D);
    const used = [new Float32Array(D).fill(1), k, new Float32Array(N * D).fill(1)].map((data) =>
      tensor(device, [1, 1, data.length / D, D], { data }),
    );
    const { output, lse } = await attention(used[0], used[1], used[2], {
      lse: true,
      variant,
      kvSplits: 1,
    });
    const expected = Math.log(64 + (N - 64) * Math.exp((Math.fround(0.9) * D) / Math.sqrt(D)));
    expect(Math.abs((await output.read())[0] - 1)).toBeLessThan(2e-6);
    expect(Math.abs(((await lse?.read()) ?? [])[0] - expected)).toBeLessThan(3e-6);
    for (const one of [...used, output, lse]) one?.destroy();
  });
});

const dense = (seed: number, shape: number[], deviation = 1) => ({
  shape,
  data: normal(seed, product(shape), deviation),
});

/** Attention of M = 2 and N = 40 with these deviations of q and k, compared with f64 to 1e-5. */
async function compare(
  variant: string,
  options: AttentionOptions & ReferenceOptions,
  { qk = [1, 1], bias }: { qk?: readonly number[]; bias?: number[] } = {},
): Promise<void> {
  const device = await testDevice();
  const tensors = [
    dense(1, [1, 2, 2, 8], qk[0]),
    dense(2, [1, 2, 40, 8], qk[1]),
    dense(3, [1, 2, 40, 8]),
  ];
  const used: Tensor[] = tensors.map(({ shape, data }) => tensor(device, shape, { data }));
  const given = bias && { shape: [1, 1, 1, 40], data: bias.map(Math.fround) };
  const gpu = given && { bias: tensor(device, given.shape, { data: given.data }) };
  const { output, lse } = await attention(used[0], used[1], used[2], {
    ...options,
    ...gpu,
    variant,
    lse: true,
  });
  const want = reference(tensors[0], tensors[1], tensors[2], {
    ...options,
    ...(given && { bias: given }),
  });
  const values = await output.read();
  const sums = (await lse?.read()) ?? [];
  for (let i = 0; i < values.length; i++)
    expect(values[i], `output ${i}`).toBeCloseTo(want.output[i], 5);
  for (let i = 0; i < sums.length; i++) {
    const expected = Math.fround(want.lse[i]);
    if (Number.isFinite(expected)) {
      expect(Math.abs(sums[i] - expected), `lse ${i}`).toBeLessThan(
        1e-5 + 1e-6 * Math.abs(expected),
      );
    } else expect(sums[i], `lse ${i}`).toBe(expected);
  }
  for (const one of [...used, output, lse, ...(gpu ? [gpu.bias] : [])]) one?.destroy();
}

const LOWEST = -3.4028234663852886e38;
describe.each(["8x32", "decode-4-quad"])("%s", (variant) => {
  it("keeps finite biases apart, however low", async () => {
    const one = (others: number, own: number) =>
      Array.from({ length: 40 }, (_, i) => (i === 7 ? own : others));
    await compare(variant, {}, { bias: one(-3.4e38, -1e38) });
    await compare(variant, {}, { bias: one(LOWEST, LOWEST) });
    await compare(variant, {}, { bias: one(Number.NEGATIVE_INFINITY, LOWEST) });
    await compare(variant, {}, { bias: one(-1e30, 3e38) });
  });
  it("keeps plain scores up to 2.3e38 apart", async () => {
    await compare(variant, { scale: 3e37 });
    await compare(variant, { scale: -3e37 });
  });
  it("takes scales of any size", async () => {
    for (const scale of [1e38, -3.4e38, 1e25, 0, 1e-38, 1e-45]) await compare(variant, { scale });
    await compare(variant, { scale: 1e38 }, { qk: [1e-19, 1e-19] });
    await compare(variant, { scale: 1e38 }, { qk: [10, 1e-34] });
  });
  it("takes softcaps of any size", async () => {
    for (const softcap of [3e38, 1e38, 1e4, 1e-38, 1e-45])
      await compare(variant, { softcap, scale: 1 });
  });
  // Both problems share a kernel.
  it("takes sinks far above and below the scores", async () => {
    for (const sink of [50, -50, 1e30, -1e30]) {
      await compare(variant, { sinks: [sink, -sink], logTemperature: 0, similarity: "cosine" });
    }
  });
  it("limits a learned temperature", async () => {
    const sinks = [0, 0];
    await compare(variant, { sinks, logTemperature: [10, 0.3], similarity: "cosine" });
    await compare(variant, {
      sinks,
      logTemperature: [10, 200],
      maxTemperature: 1.5,
      similarity: "cosine",
    });
  });
});

describe("numbers that f32 can't hold are refused", () => {
  const spec = (...shape: number[]) => ({ shape });
  const problem = { q: spec(1, 2, 3, 8), k: spec(1, 2, 5, 8), v: spec(1, 2, 5, 8) };
  it.each([
    [
      { scale: 1e39 },
      "attention: scale must be a finite number of f32, got 1e+39. Leave it out for the default.",
    ],
    [
      { softcap: 1e39 },
      "attention: softcap must be a positive number of f32, or 0 for none, got 1e+39.",
    ],
    [
      { scale: 1e38, alibiSlopes: [1, 1] },
      /a scale beyond 18446744073709552000 goes with plain scores or a softcap/,
    ],
    [
      { alibiSlopes: [1, 1e39] },
      "attention: alibiSlopes must be finite numbers of f32, got 1e+39 at 1.",
    ],
    [
      { sinks: [1, 3e38] },
      "attention: sinks must be finite numbers of f32 of at most 2e+38, got 3e+38 at 1.",
    ],
    [{ sinks: [Number.NEGATIVE_INFINITY, 1] }, /sinks must be finite numbers/],
    [
      { temperature: [1, 1e20] },
      /temperature must be finite numbers of f32 of at most 18446744073709552000, got/,
    ],
    [
      { logTemperature: 1, maxTemperature: 1e39 },
      /maxTemperature is a positive number up to 18446744073709552000/,
    ],
    [
      { similarity: { kind: "l2", eps: 1e39 } },
      /similarity.eps must be a number of 1e-30 or more, got 1e\+39/,
    ],
    [
      { similarity: { kind: "additive", innerScale: 1e39 } },
      /innerScale must be a finite number of f32/,
    ],
  ] as const)("%o", async (options, message) => {
    const device = await testDevice();
    await expectError(
      () => planAttention(device, { ...problem, ...options } as never),
      "argument",
      message,
    );
  });
  it("and scales beyond 2^64 if scores are asked for", async () => {
    const device = await testDevice();
    const { q, k } = problem;
    await expectError(
      () => planAttentionWeights(device, { q, k, scale: 1e20 } as never),
      "argument",
      /a scale beyond/,
    );
  });
});
