// The ready score and mask functions in attention give what the options give that say the same, and
// what the reference gives.

import { describe, expect, it } from "vitest";
import {
  type AttentionOptions,
  alibiScore,
  alibiSlopes,
  allOf,
  anyOf,
  attention,
  causalMask,
  chunkMask,
  createBlockMask,
  documentMask,
  type MaskFunction,
  maskFunction,
  neighborhood2d,
  planAttention,
  slidingWindow,
  softcapScore,
  type Tensor,
  t5Score,
  tensor,
} from "../../src/index.ts";
import { type ReferenceOptions, attention as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { product } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { neighborhood, type Predicate, range } from "../support/masks.ts";

failOnGpuErrors();

/** Random q, k and v for the calls of one test. */
async function withQkv(
  shape: { B?: number; H: number; M: number; N: number; spread?: number },
  work: (
    run: (options: AttentionOptions) => Promise<number[]>,
    twin: (options: ReferenceOptions) => [Float64Array, Float64Array],
    make: (shape: number[], data: ArrayLike<number>) => Tensor,
  ) => Promise<void>,
) {
  const device = await testDevice();
  const { B = 1, H, M, N, spread = 1 } = shape;
  const used: Tensor[] = [];
  const make = (size: number[], data: ArrayLike<number>) => {
    used.push(tensor(device, size, { data: Float32Array.from(data) }));
    return used[used.length - 1];
  };
  const given = [M, N, N].map((rows, what) => {
    const size = [B, H, rows, 8];
    return { shape: size, data: normal(20 + what, product(size), what < 2 ? spread : 1) };
  });
  const [q, k, v] = given.map((one) => make(one.shape, one.data));
  const run = async (options: AttentionOptions) => {
    const { output } = await attention(q, k, v, { variant: "8x32", ...options });
    used.push(output);
    return Array.from(await output.read());
  };
  const [q64, k64, v64] = given;
  try {
    const twin = (options: ReferenceOptions): [Float64Array, Float64Array] => [
      reference(q64, k64, v64, options).output,
      reference(q64, k64, v64, { ...options, precision: "f32" }).output,
    ];
    await work(run, twin, make);
  } finally {
    for (const one of used) one.destroy();
  }
}

const largestDifference = (a: readonly number[], b: readonly number[]) =>
  Math.max(...a.map((x, i) => Math.abs(x - b[i])));

const FIRST_FOUR = maskFunction("fn mask(at: Position) -> bool { return at.kv_idx < 4u; }");

describe("a function gives what the option gives", () => {
  const masks: readonly [name: string, option: AttentionOptions, mask: MaskFunction][] = [
    ["causal", { causal: true }, causalMask()],
    ["window", { window: [9, 3] }, slidingWindow(9, 3)],
    ["chunks", { attentionChunk: 7 }, chunkMask(7)],
    [
      "a causal window with sink tokens",
      { causal: true, window: [9, 0], sinkTokens: 4 },
      allOf(causalMask(), anyOf(slidingWindow(9, 0), FIRST_FOUR)),
    ],
    ["causal window", { causal: true, window: [20, 4] }, allOf(slidingWindow(20, 4), causalMask())],
  ];
  it.each(masks)("%s", async (_, option, mask) => {
    await withQkv({ H: 2, M: 70, N: 60 }, async (run) => {
      const byOption = await run(option);
      const byFunction = await run({ maskFunction: mask });
      expect(largestDifference(byOption, byFunction)).toBeLessThan(1e-6);
      expect(byFunction.some((value) => value !== 0)).toBe(true);
    });
  });
  it("ALiBi, for heads and for batch entries", async () => {
    await withQkv({ B: 2, H: 3, M: 37, N: 70 }, async (run, _, make) => {
      for (const shape of [[3], [2, 3]]) {
        const slopes = make(shape, normal(5, product(shape), 0.3));
        const byOption = await run({ alibiSlopes: slopes });
        const byFunction = await run({ scoreFunction: alibiScore(slopes) });
        expect(largestDifference(byOption, byFunction)).toBeLessThan(1e-6);
      }
    });
  });
  it.each([
    { buckets: 32 },
    { buckets: 16, bidirectional: false, maxDistance: 36 },
    { buckets: 40, maxDistance: 12 }, // some buckets are never used
  ])("T5's bias $buckets $bidirectional $maxDistance", async ({ buckets, ...rest }) => {
    await withQkv({ H: 2, M: 140, N: 290 }, async (run, _, make) => {
      const table = make([buckets, 2], normal(6, 2 * buckets, 1));
      const byOption = await run({ relativeBias: { table, ...rest } });
      const byFunction = await run({ scoreFunction: t5Score({ table, ...rest }) });
      expect(largestDifference(byOption, byFunction)).toBeLessThan(1e-6);
    });
  });
  it("softcap", async () => {
    await withQkv({ H: 2, M: 37, N: 70, spread: 4 }, async (run) => {
      for (const cap of [3, 50]) {
        const byOption = await run({ softcap: cap });
        const byFunction = await run({ scoreFunction: softcapScore(cap) });
        expect(largestDifference(byOption, byFunction)).toBeLessThan(1e-6);
      }
    });
  });
});

describe("attention by a mask of the library is the reference's", () => {
  it("causal documents, and others in their place", async () => {
    const device = await testDevice();
    const N = 90;
    const documents = (length: number) => range(2 * N).map((n) => Math.floor(n / length));
    const ids = [17, 40].map((length) =>
      tensor(device, [2, N], { dtype: "i32", data: documents(length) }),
    );
    const js =
      (length: number): Predicate =>
      ({ batch, kvIdx, position }) =>
        documents(length)[batch * N + kvIdx] === documents(length)[batch * N + position];
    await withQkv({ B: 2, H: 2, M: 50, N }, async (run, twin) => {
      const mask = allOf(causalMask(), documentMask(ids[0]));
      const values = await run({ maskFunction: mask });
      const [f64, plain] = twin({ causal: true, maskFunction: js(17) });
      expectClose("output", values, { f64, plain }, [2, 2, 50, 8]);
    });
    const q = tensor(device, [2, 1, N, 8], { data: normal(1, 2 * N * 8, 1) });
    const output = tensor(device, [2, 1, N, 8]);
    const plan = await planAttention(device, {
      q,
      k: q,
      v: q,
      variant: "8x32",
      maskFunction: allOf(causalMask(), documentMask(ids[0])),
    });
    const encoder = device.createCommandEncoder();
    plan.encode(encoder, { output, captures: { document_ids_2: ids[1] } });
    device.queue.submit([encoder.finish()]);
    const data = { shape: q.shape, data: normal(1, 2 * N * 8, 1) };
    const options = { causal: true, maskFunction: js(40) } as const;
    const f64 = reference(data, data, data, options).output;
    const plain = reference(data, data, data, { ...options, precision: "f32" }).output;
    expectClose("output", await output.read(), { f64, plain }, [2, 1, N, 8]);
    for (const used of [...ids, q, output, plan]) used.destroy();
  });
  it("a neighborhood by its block mask", async () => {
    const device = await testDevice();
    const blockMask = await createBlockMask(device, neighborhood2d(16, 12, 5), {
      seqQ: 192,
      seqKv: 192,
    });
    await withQkv({ H: 2, M: 192, N: 192 }, async (run, twin) => {
      const [f64, plain] = twin({ maskFunction: neighborhood(16, 12, 5) });
      expectClose("output", await run({ blockMask }), { f64, plain }, [1, 2, 192, 8]);
    });
    blockMask.destroy();
  });
});

describe("the slopes of ALiBi", () => {
  it("are those of the paper", () => {
    expect(alibiSlopes(8)).toEqual([1, 2, 3, 4, 5, 6, 7, 8].map((n) => 2 ** -n));
    expect(alibiSlopes(1)).toEqual([2 ** -8]);
    expect(alibiSlopes(16).slice(0, 2)).toEqual([2 ** -0.5, 2 ** -1]);
    expect(alibiSlopes(12)).toEqual([
      ...alibiSlopes(8),
      ...[0, 2, 4, 6].map((head) => alibiSlopes(16)[head]),
    ]);
  });
  it("are those of Keras, whose AlibiBias is -slope * distance", () => {
    // keras_hub alibi_bias_test.py: num_heads 3, alibi_bias_max 6, key_length 3.
    const bias = [-0.25, -0.125, 0, -0.03125, -0.015625, 0, -0.70710677, -0.35355338, 0];
    const slopes = alibiSlopes(3, 6);
    slopes.forEach((slope, head) => {
      for (const key of range(3)) expect(-slope * (2 - key)).toBeCloseTo(bias[3 * head + key], 7);
    });
    expect(alibiSlopes(2, 12)).toEqual([2 ** -6, 2 ** -12]);
  });
});
