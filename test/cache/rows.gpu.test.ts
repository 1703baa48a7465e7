// Rows that the append kernel normalises, rotates and quantises, against the float64 reference.

import { describe, expect, it } from "vitest";
import {
  type AppendOptions,
  createKvCache,
  type KvCacheOptions,
  type Tensor,
  type TensorOptions,
  tensor,
} from "../../src/index.ts";
import {
  dequantiseRow,
  quantisedWords,
  quantiseRow,
  rmsNorm,
  rotary,
} from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { product } from "../support/cases.ts";
import { expectClose } from "../support/closeness.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

const SIZES = { B: 2, H: 4, Hkv: 2, M: 3, D: 16, past: 5 };
type Rotation = NonNullable<KvCacheOptions["rotary"]>;

interface Turned extends Pick<KvCacheOptions, "qkNorm" | "rotary"> {
  readonly options?: AppendOptions;
  /** A position by stream, batch entry and row. Default the token's place. */
  readonly position?: (stream: number, batch: number, row: number) => number;
  readonly inPlace?: boolean;
  readonly qDtype?: TensorOptions;
}

/** Computes k and q of M tokens after `past` others, in float64 or with every operation in f32. */
function expected(
  data: Float32Array,
  heads: number,
  which: "q" | "k",
  turned: Turned,
  precision: "f64" | "f32",
) {
  const { B, M, D, past } = SIZES;
  const { qkNorm, rotary: rotation, position = (_, __, row) => past + row } = turned;
  const weight = qkNorm?.[which] as Float32Array | undefined;
  const normed = qkNorm
    ? rmsNorm(data, D, { ...(weight && { weight }), epsilon: qkNorm.epsilon ?? 1e-6, precision })
    : data;
  if (!rotation) return normed;
  return rotary(
    { data: normed, shape: [B, heads, M, D] },
    { ...(rotation as object), position, precision },
  );
}

/** Appends tokens after others and compares the rows of k, v and q. */
async function expectTurned(turned: Turned): Promise<void> {
  const { B, H, Hkv, M, D, past } = SIZES;
  const { qkNorm, rotary: rotation, options = {}, inPlace = true } = turned;
  const device = await testDevice();
  const cache = await createKvCache(device, {
    batch: B,
    kvHeads: Hkv,
    headDim: D,
    vDim: 4,
    capacity: past + M,
    ...(qkNorm && { qkNorm }),
    ...(rotation && { rotary: rotation }),
  });
  const used: Tensor[] = [];
  const make = (seed: number, shape: number[], how: TensorOptions = {}) => {
    const data = normal(seed, product(shape));
    const gpu = tensor(device, shape, { ...how, data });
    used.push(gpu);
    return { data, gpu };
  };
  const before = make(1, [B, Hkv, past, D]);
  const values = make(2, [B, Hkv, past, 4]);
  await cache.append(before.gpu, values.gpu);
  const k = make(3, [B, Hkv, M, D]);
  const v = make(4, [B, Hkv, M, 4]);
  const q = make(5, [B, H, M, D], turned.qDtype);
  const output = make(6, [B, H, M, D]).gpu;
  await cache.append(k.gpu, v.gpu, { ...options, q: q.gpu, ...(!inPlace && { qOutput: output }) });
  const rows = (of: Tensor) => of.slice(2, past, past + M).read();
  const both = (data: Float32Array, heads: number, which: "q" | "k") => ({
    f64: expected(data, heads, which, turned, "f64"),
    plain: expected(data, heads, which, turned, "f32"),
  });
  expectClose("k", await rows(cache.source.k), both(k.data, Hkv, "k"), [B, Hkv, M, D]);
  expectClose("q", await (inPlace ? q.gpu : output).read(), both(q.data, H, "q"), [B, H, M, D]);
  expect(await rows(cache.source.v)).toEqual(v.data);
  if (!inPlace) expect(await q.gpu.read()).toEqual(q.data);
  for (const one of used) one.destroy();
  cache.destroy();
}

const WEIGHTS = { q: normal(8, SIZES.D), k: normal(9, SIZES.D), epsilon: 1e-5 };

describe("rows of q and k", () => {
  it("are rotated, in halves, as they come after others", () =>
    expectTurned({ rotary: { base: 500 } }));
  it("are rotated into another tensor, some channels in neighbours", () =>
    expectTurned({ rotary: { rotaryDim: 6, interleaved: true }, inPlace: false }));
  it("are normalised and then rotated", () =>
    expectTurned({ qkNorm: WEIGHTS, rotary: { base: 500 } }));
  it("are normalised to their last channel, if rows of v have fewer", async () => {
    const device = await testDevice();
    const cache = await createKvCache(device, {
      batch: 1,
      kvHeads: 1,
      headDim: 5,
      vDim: 3,
      capacity: 2,
      qkNorm: {},
    });
    const data = normal(7, 10);
    const [q, k, v] = [5, 5, 3].map((width) =>
      tensor(device, [1, 1, 2, width], { data: data.slice(0, 2 * width) }),
    );
    await cache.append(k, v, { q });
    const both = (["f64", "f32"] as const).map((precision) =>
      rmsNorm(data, 5, { epsilon: 1e-6, precision }),
    );
    expectClose("q", await q.read(), { f64: both[0], plain: both[1] }, [1, 1, 2, 5]);
    for (const used of [q, k, v, cache]) used.destroy();
  });
  it("are normalised without weights", () => expectTurned({ qkNorm: {} }));
  it("are normalised at any magnitude, zeros to zeros", async () => {
    const device = await testDevice();
    const D = 16;
    const scales = [1, 1e19, 1e30, 1e38, 1e-19, 1e-25, 1e-30, 0];
    const M = scales.length;
    const noise = normal(21, M * D).map((x) => Math.max(-3, Math.min(3, x)));
    const data = noise.map((x, i) => x * scales[Math.floor(i / D)]);
    for (const epsilon of [0, 1e-6]) {
      const options = { batch: 1, kvHeads: 1, headDim: D, capacity: M, qkNorm: { epsilon } };
      const cache = await createKvCache(device, options);
      const [k, q] = [1, 2].map(() => tensor(device, [1, 1, M, D], { data }));
      await cache.append(k, k, { q });
      const f64 = rmsNorm(data, D, { epsilon: Math.fround(epsilon) });
      for (const found of [await cache.source.k.read(), await q.read()]) {
        for (let m = 0; m < M; m++) {
          const expected = f64.slice(m * D, (m + 1) * D);
          const both = { f64: expected, plain: expected.map(Math.fround) };
          expectClose(
            `${scales[m]}, epsilon ${epsilon}`,
            Array.from(found).slice(m * D, (m + 1) * D),
            both,
            [D],
          );
        }
      }
      for (const used of [k, q, cache]) used.destroy();
    }
  });
  it("are rotated from an offset on", async () => {
    const position = (_: number, __: number, row: number) => SIZES.past + row + 100_000;
    await expectTurned({ rotary: { base: 500 }, options: { positionOffset: 100_000 }, position });
  });
  it("are rotated by positions of time, height and width", async () => {
    const { B, M } = SIZES;
    const data = Int32Array.from({ length: 3 * B * M }, (_, i) => (i * 37) % 101);
    const positionIds = tensor(await testDevice(), [3, B, M], { dtype: "i32", data });
    const rotation: Rotation = { sections: [4, 2, 2] };
    const position = (stream: number, batch: number, row: number) =>
      data[(stream * B + batch) * M + row];
    await expectTurned({ rotary: rotation, options: { positionIds }, position });
  });
  it("with sections, and without given positions, are rotated as text is", () =>
    expectTurned({ rotary: { sections: [4, 2, 2], base: 500 } }));
  it("are stretched as the model's context was", async () => {
    const yarn = { type: "yarn", factor: 4, originalMaxPositions: 32 } as const;
    await expectTurned({ rotary: { base: 500, scaling: yarn } });
  });
  it("turn in place where rows of two elements a word lie", async () => {
    // Multiples of 1/64 are exact in f16 before the rotation, but not after, so they are compared
    // by rounding.
    const { B, H, Hkv, M, D } = SIZES;
    const device = await testDevice();
    const cache = await createKvCache(device, {
      batch: B,
      kvHeads: Hkv,
      headDim: D,
      capacity: 4,
      rotary: { base: 500 },
    });
    const data = normal(5, B * H * M * D).map((x) => Math.round(x * 64) / 64);
    const strides = [M * H * (D + 1), D + 1, H * (D + 1), 1];
    const q = tensor(device, [B, H, M, D], { data, dtype: "f16", strides });
    const k = tensor(device, [B, Hkv, M, D], { data: normal(3, B * Hkv * M * D) });
    await cache.append(k, k, { q });
    const f64 = rotary({ data, shape: [B, H, M, D] }, { base: 500 });
    const plain = tensor(device, [B, H, M, D], { data: f64, dtype: "f16" });
    expectClose("q", await q.read(), { f64, plain: await plain.read() }, [B, H, M, D], "f16");
    cache.destroy();
  });
});

/** Appends a row to a cache with one head, and returns its words. */
async function storedWords(
  row: readonly number[] | Float32Array,
  options: Partial<KvCacheOptions>,
) {
  const device = await testDevice();
  const headDim = row.length;
  const cache = await createKvCache(device, {
    batch: 1,
    kvHeads: 1,
    capacity: 1,
    headDim,
    ...options,
  });
  const data = Float32Array.from(row);
  const k = tensor(device, [1, 1, 1, headDim], { data });
  await cache.append(k, k);
  const words = Array.from((await cache.source.k.read()) as Uint32Array);
  cache.destroy();
  return words;
}

describe("integers", () => {
  const same = async (row: Float32Array) => {
    for (const [dtype, bits] of [
      ["int8", 8],
      ["int4", 4],
    ] as const) {
      // biome-ignore format: a table
      const options = { dtype, groupSize: 8 } as const;
      expect(await storedWords(row, options), dtype).toEqual(
        Array.from(quantisedWords(row, { bits, group: 8 })),
      );
    }
  };
  it("are the reference's, bit for bit, of every size", async () => {
    const row = normal(11, 64).map((x, d) => x * 2 ** ((d % 8) * 3 - 100 + Math.floor(d / 8) * 25));
    await same(row);
  });
  it("are even if a number lies between two", async () => {
    // In f32, 127 (1 / 127) and 7 (1 / 7) are 1: so scales are powers of two, and halves are ties.
    const row = Float32Array.from({ length: 64 }, (_, d) =>
      d % 8 === 0 ? 127 : (d - 31.5) * (d % 2 ? 1 : -1),
    );
    const ties = (bits: 8 | 4, of: Float32Array) => {
      const { scales, integers } = quantiseRow(of, { bits, group: 8 });
      return integers.filter(
        (q, d) => Math.abs(q * scales[Math.floor(d / 8)] - of[d]) === scales[0] / 2,
      );
    };
    const large = row.map((x) => x * 2 ** 20);
    const small = row.map((x, d) => (d % 8 === 0 ? 7 : x % 7));
    expect(ties(8, large).length).toBe(56);
    expect(ties(4, small).length).toBe(56);
    expect([...ties(8, large), ...ties(4, small)].every((q) => q % 2 === 0)).toBe(true);
    await same(large);
    await same(small);
  });
  it("are 0 in groups of zeros, of subnormals and of what is nearly that", async () => {
    const row = new Float32Array(64);
    row.set([0, -0, 0, 0, 0, 0, 0, 0, 1e-40, -1e-45, 0, 0, 0, 0, 0, 0, 2 ** -118, 1e-40], 0);
    row[24] = -(2 ** -118) * (1 - 2 ** -24);
    row[32] = 3.4e38;
    row[33] = 1e-40;
    row.set([-3.4e38, 3.4e38, 1.7e38, 1e38], 40);
    await same(row);
  });
  it("have the scale NaN if a number is NaN or infinite", async () => {
    const row = normal(12, 64);
    row[3] = Number.NaN;
    row[17] = Number.POSITIVE_INFINITY;
    row[40] = Number.NEGATIVE_INFINITY;
    const words = await storedWords(row, { dtype: "int8", groupSize: 8 });
    const reference = Array.from(quantisedWords(row, { bits: 8, group: 8 }));
    expect(words).toEqual(reference);
    expect(words.slice(0, 8).map((word) => word === 0x7fc00000)).toEqual(
      [1, 0, 1, 0, 0, 1, 0, 0].map(Boolean),
    );
  });
  it.each([
    ["int8", 8],
    ["int4", 4],
  ] as const)("of %s are half a scale from rows that were rotated", async (dtype, bits) => {
    const device = await testDevice();
    const M = 6;
    const D = 64;
    const options = { batch: 1, kvHeads: 1, headDim: D, capacity: M, rotary: {}, qkNorm: {} };
    const k = normal(13, M * D, 3);
    const gpu = tensor(device, [1, 1, M, D], { data: k });
    const cache = await createKvCache(device, { ...options, dtype });
    await cache.append(gpu, gpu);
    const words = (await cache.source.k.read()) as Uint32Array;
    const f64 = rotary({ data: rmsNorm(k, D), shape: [1, 1, M, D] });
    const perRow = words.length / M;
    for (let m = 0; m < M; m++) {
      const [scaleBits, ...packed] = words.slice(m * perRow, (m + 1) * perRow);
      const scale = new Float32Array(new Uint32Array([scaleBits]).buffer)[0];
      for (let d = 0; d < D; d++) {
        const shift = 32 - bits * ((d % (32 / bits)) + 1);
        const q = (packed[Math.floor((d * bits) / 32)] << shift) >> (32 - bits);
        expect(Math.abs(q * scale - f64[m * D + d])).toBeLessThanOrEqual(
          (scale / 2) * (1 + 1e-6) + 2e-6,
        );
      }
    }
    cache.destroy();
  });
});

describe("what integers cost", () => {
  it.each([8, 4] as const)("of %d bits is at most half a scale, in every element", (bits) => {
    const row = normal(14, 4096);
    for (const group of [8, 64, 4096]) {
      const quantised = quantiseRow(row, { bits, group });
      const values = dequantiseRow(quantised, { bits, group });
      for (let d = 0; d < row.length; d++) {
        const bound = (quantised.scales[Math.floor(d / group)] / 2) * (1 + 1e-6);
        expect(Math.abs(row[d] - values[d])).toBeLessThanOrEqual(bound);
      }
    }
  });
});
