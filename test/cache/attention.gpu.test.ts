// Attention to caches, read where they lie: contiguous, in rings, in pages, as floats and as
// integers.

import { describe, expect, it } from "vitest";
import {
  type AttentionOptions,
  attention,
  attentionWeights,
  planAttention,
  tensor,
  topKKeys,
} from "../../src/index.ts";
import {
  attentionScores,
  type ReferenceOptions,
  attention as reference,
  topKKeys as referenceTopK,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { product } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { makeSource, type SourceSpec } from "../support/sources.ts";

failOnGpuErrors();

interface Case extends SourceSpec {
  readonly name: string;
  readonly H: number;
  readonly M: number;
  readonly options?: Pick<
    ReferenceOptions,
    "causal" | "window" | "sinkTokens" | "attentionChunk" | "softcap"
  > & {
    readonly similarity?:
      | "cosine"
      | { readonly kind: "additive"; readonly vector: readonly number[] };
  };
  readonly variant?: string;
}

const VECTOR = Array.from(normal(3, 16));

// This tile compiles fastest. One case of each kind of place has quads instead, as a software
// adapter gets them.
const SIZES = { B: 3, H: 4, Hkv: 2, D: 16, variant: "8x32" };
const ROWS = { ...SIZES, capacity: 90, lengths: [70, 1, 33] };
const CASES: readonly Case[] = [
  { name: "rows", ...ROWS, place: "rows", M: 40, options: { causal: true } },
  {
    name: "rows of an empty entry",
    ...ROWS,
    lengths: [0, 90, 5],
    place: "rows",
    M: 3,
    options: { causal: true },
  },
  {
    name: "pages of 16",
    ...ROWS,
    place: "paged",
    pageSize: 16,
    M: 40,
    options: { causal: true },
    variant: "8x4-quad",
  },
  {
    name: "pages of 1",
    ...ROWS,
    place: "paged",
    pageSize: 1,
    M: 5,
    options: { window: [20, 0], sinkTokens: 2 },
  },
  {
    name: "a ring that went round",
    ...SIZES,
    capacity: 4096,
    lengths: [1000, 17, 61],
    place: "ring",
    ring: 60,
    M: 10,
    options: { causal: true, window: [50, 0] },
  },
  {
    name: "a ring with sink tokens",
    ...SIZES,
    capacity: 500,
    lengths: [333, 2, 40],
    place: "ring",
    ring: 31,
    sinkTokens: 4,
    M: 1,
    options: { causal: true, window: [30, 0], sinkTokens: 4 },
    variant: "8x4-quad",
  },
  {
    name: "a part of a ring",
    ...SIZES,
    capacity: 500,
    lengths: [333, 2, 40],
    place: "ring",
    ring: 31,
    sinkTokens: 4,
    M: 1,
    options: { causal: true, window: [20, 0], sinkTokens: 4 },
    variant: "8x4-quad",
  },
  {
    name: "bf16 in pages",
    ...ROWS,
    place: "paged",
    pageSize: 7,
    dtype: "bf16",
    M: 40,
    options: { causal: true },
  },
  {
    name: "int8",
    ...ROWS,
    place: "rows",
    quantised: { bits: 8, groupK: 16, groupV: 16 },
    M: 40,
    variant: "8x4-quad",
  },
  {
    name: "int4 in groups, in pages",
    ...ROWS,
    place: "paged",
    pageSize: 16,
    D: 20,
    Dv: 12,
    M: 4,
    quantised: { bits: 4, groupK: 8, groupV: 12 },
    options: { causal: true },
  },
  {
    name: "cosine similarity in pages",
    ...ROWS,
    place: "paged",
    pageSize: 7,
    dtype: "bf16",
    M: 20,
    options: { causal: true, similarity: "cosine" },
  },
  {
    name: "additive scores in a ring",
    ...SIZES,
    capacity: 500,
    lengths: [333, 2, 40],
    place: "ring",
    ring: 31,
    M: 1,
    options: { window: [30, 0], similarity: { kind: "additive", vector: VECTOR } },
  },
];

function problemOf(device: GPUDevice, { name: _, H, M, options = {}, variant, ...spec }: Case) {
  const made = makeSource(device, spec);
  const data = normal(77, spec.B * H * M * spec.D);
  const shape = [spec.B, H, M, spec.D];
  const q = { data, shape, gpu: tensor(device, shape, { data }) };
  const cpu: ReferenceOptions = { ...options, kvLengths: spec.lengths };
  const gpu: Pick<AttentionOptions, "causal" | "window" | "similarity" | "variant"> = {
    ...options,
    ...(variant !== undefined && { variant }),
  };
  return { ...made, q, cpu, gpu, shape: [spec.B, H, M, spec.Dv ?? spec.D] };
}

describe("attention to a cache", () => {
  it.each(CASES)("$name", async (problem) => {
    const device = await testDevice();
    const { source, q, k, v, cpu, gpu, shape, destroy } = problemOf(device, problem);
    const output = tensor(device, shape, {
      data: new Float32Array(product(shape)).fill(Number.NaN),
    });
    const { lse } = await attention(q.gpu, { source }, { ...gpu, output, lse: true });
    const f64 = reference(q, k, v, cpu);
    const plain = reference(q, k, v, { ...cpu, precision: "f32" });
    expectClose("output", await output.read(), { f64: f64.output, plain: plain.output }, shape);
    expectClose(
      "lse",
      (await lse?.read()) as Float32Array,
      { f64: f64.lse, plain: plain.lse },
      shape.slice(0, 3),
    );
    for (const used of [q.gpu, output, lse]) used?.destroy();
    destroy();
  });

  it("gives weights and the keys that matter", async () => {
    const device = await testDevice();
    const { variant: _, ...scored } = CASES[2];
    const { source, q, k, cpu, gpu, destroy } = problemOf(device, scored);
    const stage = "probabilities";
    const weights = await attentionWeights(q.gpu, { source }, gpu);
    const f64 = attentionScores(q, k, { ...cpu, stage });
    const plain = attentionScores(q, k, { ...cpu, stage, precision: "f32" });
    expectClose("weights", await weights.read(), { f64, plain }, weights.shape);
    const found = await topKKeys(q.gpu, { source }, { ...gpu, k: 5 });
    expect(Array.from(await found.indices.read())).toEqual(
      Array.from(referenceTopK(q, k, 5, cpu).indices),
    );
    for (const used of [q.gpu, weights, found.indices, found.weights]) used.destroy();
    destroy();
  });

  it("takes queries that lie one after the other, with their own lengths and positions", async () => {
    const device = await testDevice();
    const { source, k, v, destroy } = makeSource(device, { ...ROWS, place: "rows" });
    const cuSeqlensQ = [0, 4, 4, 13];
    const data = normal(5, SIZES.H * 13 * SIZES.D);
    const shape = [1, SIZES.H, 13, SIZES.D];
    const q = tensor(device, shape, { data });
    const own = { qLengths: [3, 0, 9], queryOffset: [60, 0, 20] };
    const options = { cuSeqlensQ, ...own, causal: true };
    const { output } = await attention(q, { source }, { ...options, variant: SIZES.variant });
    // Here the same keys lie one after the other.
    const starts = [0, 90, 180, 270];
    const [keys, values] = [k, v].map((given) => {
      const [B, Hkv, N, D] = given.shape;
      const rows = new Float32Array(given.data.length);
      for (let b = 0; b < B; b++) {
        for (let h = 0; h < Hkv; h++) {
          const from = (b * Hkv + h) * N * D;
          rows.set(given.data.subarray(from, from + N * D), (h * B * N + b * N) * D);
        }
      }
      return { data: rows, shape: [1, Hkv, B * N, D] };
    });
    const cpu = { ...options, cuSeqlensKv: starts, kvLengths: ROWS.lengths };
    const f64 = reference({ data, shape }, keys, values, cpu).output;
    const plain = reference({ data, shape }, keys, values, { ...cpu, precision: "f32" }).output;
    expectClose("output", await output.read(), { f64, plain }, shape);
    for (const used of [q, output]) used.destroy();
    destroy();
  });
});

describe("queries of different numbers", () => {
  it("end at the last key of their entry, if they are causal", async () => {
    const device = await testDevice();
    const spec = { ...ROWS, name: "", place: "rows", M: 5 } as const;
    const { source, q, k, v, shape, destroy } = problemOf(device, spec);
    const options = { causal: true, qLengths: [3, 5, 1] };
    const { output } = await attention(q.gpu, { source }, { ...options, variant: SIZES.variant });
    const cpu = { ...options, kvLengths: ROWS.lengths };
    const f64 = reference(q, k, v, cpu).output;
    const plain = reference(q, k, v, { ...cpu, precision: "f32" }).output;
    expectClose("output", await output.read(), { f64, plain }, shape);
    for (const used of [q.gpu, output]) used.destroy();
    destroy();
  });
});

const RING = {
  ...SIZES,
  capacity: 500,
  lengths: [40, 2, 40],
  place: "ring",
  ring: 31,
  sinkTokens: 2,
} as const;

describe("what a cache does not take", () => {
  it.each<[string, AttentionOptions, string]>([
    [
      "lengths of keys",
      { kvLengths: [1, 2, 3] },
      "attention: the cache counts the keys of its entries; leave kvLengths out.",
    ],
    [
      "a window that reaches keys which the ring has lost",
      { causal: true, window: [29, 0] },
      "attention: the ring keeps the last 31 keys; 3 queries with 29 keys behind each may look at 32. Give a window of at most [28, ...], or make the cache with a larger ring.",
    ],
    [
      "a ring without a window",
      { causal: true },
      "attention: the ring keeps the last 31 keys; 3 queries with no bound behind them may look at any. Give a window of at most [28, ...], or make the cache with a larger ring.",
    ],
    [
      "more sink tokens than a ring keeps",
      { causal: true, window: [28, 0], sinkTokens: 3 },
      "attention: sinkTokens is 3, but the ring keeps only the first 2 keys.",
    ],
    [
      "other positions than those of a ring",
      { causal: true, window: [28, 0], queryOffset: 3 },
      "attention: queries of a ring stand at its last keys; leave queryOffset out.",
    ],
  ])("%s", async (_, options, message) => {
    const device = await testDevice();
    const { source, destroy } = makeSource(device, RING);
    const q = tensor(device, [3, 4, 3, 16], { data: normal(1, 3 * 4 * 3 * 16) });
    await expectError(() => attention(q, { source }, options), "argument", message);
    q.destroy();
    destroy();
  });

  it("keys beside it, and what isn't a cache", async () => {
    const device = await testDevice();
    const { source, destroy } = makeSource(device, RING);
    const q = tensor(device, [3, 4, 3, 16], { data: normal(1, 3 * 4 * 3 * 16) });
    const beside = "attention: the keys and values are those of the cache; leave k and v out.";
    const both = { q, k: q, cache: { source } } as Parameters<typeof planAttention>[1];
    await expectError(() => planAttention(device, both), "argument", beside);
    const none = "attention: cache must come from createKvCache() or createPagedKvCache(), got 5.";
    const number = { q, cache: 5 } as unknown as Parameters<typeof planAttention>[1];
    await expectError(() => planAttention(device, number), "argument", none);
    q.destroy();
    destroy();
  });
});
