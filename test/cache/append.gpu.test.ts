// What the append kernel writes is compared with a plain history of tokens. If no arithmetic
// happens, that is bit for bit, over the whole memory of the cache: rows that aren't part of an
// append stay as they were.

import { describe, expect, it } from "vitest";
import {
  createKvCache,
  type KvCacheOptions,
  type Tensor,
  type TensorOptions,
  tensor,
} from "../../src/index.ts";
import { integers, normal } from "../../src/reference/random.ts";
import { CacheImage, type NewRows } from "../support/caches.ts";
import { ROUND } from "../support/cases.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";

failOnGpuErrors();

type Dtype = "f32" | "f16" | "bf16";
let seed = 100;

/** Makes new tokens of a cache. */
function newRows(
  { batch, kvHeads, headDim, vDim = headDim }: KvCacheOptions,
  M: number,
  dtype: Dtype = "f32",
): NewRows {
  const make = (dim: number) => normal(seed++, batch * kvHeads * M * dim).map(ROUND[dtype]);
  return { k: make(headDim), v: make(vDim), M };
}

/** Appends rows, of which entries get `counts`, as tensors of a kind; and frees them. */
async function append(
  cache: Awaited<ReturnType<typeof createKvCache>>,
  image: CacheImage,
  options: KvCacheOptions,
  M: number,
  counts?: readonly number[],
  upload: (device: GPUDevice, shape: number[], data: Float32Array) => Tensor = dense("f32"),
  dtype: Dtype = "f32",
): Promise<void> {
  const { batch, kvHeads, headDim, vDim = headDim } = options;
  const rows = newRows(options, M, dtype);
  const k = upload(cache.device, [batch, kvHeads, M, headDim], rows.k);
  const v = upload(cache.device, [batch, kvHeads, M, vDim], rows.v);
  await cache.append(k, v, counts ? { counts } : {});
  image.append(rows, counts);
  for (const used of [k, v]) used.destroy();
}

const dense =
  (dtype: Dtype, options: TensorOptions = {}) =>
  (device: GPUDevice, shape: number[], data: Float32Array) =>
    tensor(device, shape, { ...options, data, dtype });

/** Makes rows in the order BMHD, with gaps, from an odd element on. */
const strided = (dtype: Dtype) => (device: GPUDevice, shape: number[], data: Float32Array) => {
  const [, H, M, D] = shape;
  const row = H * (D + 1) + 3;
  return tensor(device, shape, { data, dtype, strides: [M * row + 1, D + 1, row, 1], offset: 5 });
};

const STORED: readonly (readonly [string, Partial<KvCacheOptions>])[] = [
  ["f32", { headDim: 8, vDim: 6 }],
  ["f16 of odd head dims", { dtype: "f16", headDim: 5, vDim: 7 }],
  ["bf16", { dtype: "bf16", headDim: 12 }],
  ["int8", { dtype: "int8", headDim: 16, vDim: 10 }],
  ["int8 in groups", { dtype: "int8", headDim: 32, vDim: 24, groupSize: { k: 8 } }],
  ["int4", { dtype: "int4", headDim: 20, vDim: 6 }],
  ["int4 in groups", { dtype: "int4", headDim: 16, groupSize: 8 }],
];

describe("what is stored", () => {
  it.each(STORED)(
    "as %s is what was appended, at every alignment, and nothing else",
    async (_, given) => {
      const device = await testDevice();
      const options = { batch: 2, kvHeads: 3, headDim: 8, capacity: 23, ...given };
      const cache = await createKvCache(device, options);
      const image = new CacheImage(cache, options);
      for (const M of [1, 3, 1, 7, 2]) await append(cache, image, options, M);
      // biome-ignore format: a table
      for (const counts of [[0, 1], [2, 0], [1, 2], [0, 0]]) await append(cache, image, options, 2, counts);
      expect(await image.difference(cache)).toBeUndefined();
      expect(cache.lengths).toEqual([17, 17]);
      cache.destroy();
    },
  );
  it("of 128 and more channels takes several turns of a lane", async () => {
    const device = await testDevice();
    const options = {
      batch: 1,
      kvHeads: 2,
      headDim: 260,
      vDim: 12,
      capacity: 4,
      dtype: "int8",
    } as const;
    const cache = await createKvCache(device, options);
    const image = new CacheImage(cache, options);
    await append(cache, image, options, 3);
    expect(await image.difference(cache)).toBeUndefined();
    cache.destroy();
  });
  it.each([
    ["strided f32", strided("f32"), "f32"],
    ["f16", dense("f16"), "f16"],
    ["strided bf16", strided("bf16"), "bf16"],
  ] as const)("from %s is the same", async (_, upload, dtype) => {
    const device = await testDevice();
    const options = { batch: 2, kvHeads: 2, headDim: 8, capacity: 9 };
    const cache = await createKvCache(device, options);
    const image = new CacheImage(cache, options);
    for (const M of [3, 1]) await append(cache, image, options, M, undefined, upload, dtype);
    expect(await image.difference(cache)).toBeUndefined();
    cache.destroy();
  });
  it("comes from BMHD, and from a packed row", async () => {
    const device = await testDevice();
    const options = { batch: 2, kvHeads: 2, headDim: 8, capacity: 9 };
    const cache = await createKvCache(device, options);
    const image = new CacheImage(cache, options);
    const rows = newRows(options, 3);
    const packed = tensor(device, [2, 3, 32]);
    const view = (at: number) =>
      packed.view({ shape: [2, 3, 2, 8], strides: [96, 32, 8, 1], offset: at });
    const fill = new Float32Array(192);
    for (let at = 0; at < 96; at++) {
      const b = Math.floor(at / 48);
      const h = Math.floor(at / 24) % 2;
      const m = Math.floor(at / 8) % 3;
      const d = at % 8;
      fill[b * 96 + m * 32 + h * 8 + d] = rows.k[at];
      fill[b * 96 + m * 32 + 16 + h * 8 + d] = rows.v[at];
    }
    device.queue.writeBuffer(packed.buffer, 0, fill);
    await cache.append(view(0), view(16), { layout: "bmhd" });
    image.append(rows);
    expect(await image.difference(cache)).toBeUndefined();
    cache.destroy();
  });
});

describe("a ring", () => {
  it.each([0, 3])("with %d sink tokens keeps these and the last ones", async (sinkTokens) => {
    const device = await testDevice();
    const options = { batch: 2, kvHeads: 2, headDim: 8, window: 4, ring: 7, sinkTokens };
    const cache = await createKvCache(device, options);
    const image = new CacheImage(cache, options);
    expect(cache.source.k.shape).toEqual([2, 2, 7 + sinkTokens, 8]);
    for (const M of [1, 3, 2, 3, 7, 1]) await append(cache, image, options, M);
    // biome-ignore format: a table
    for (const counts of [[0, 2], [3, 1]]) await append(cache, image, options, 3, counts);
    expect(await image.difference(cache)).toBeUndefined();
    // These are more rows than the ring holds: the last row of each place counts, whatever the
    // order of the lanes.
    await append(cache, image, options, 40);
    await append(cache, image, options, 16, [16, 9]);
    expect(await image.difference(cache)).toBeUndefined();
    cache.destroy();
  });
});

describe("counts", () => {
  it("on the GPU are limited to the rows that there are, and taken for all of them on the host", async () => {
    const device = await testDevice();
    const options = { batch: 3, kvHeads: 1, headDim: 8, capacity: 20 };
    const cache = await createKvCache(device, options);
    const image = new CacheImage(cache, options);
    const rows = newRows(options, 4);
    const [k, v] = [rows.k, rows.v].map((data) => tensor(device, [3, 1, 4, 8], { data }));
    const counts = tensor(device, [3], { dtype: "i32", data: [2, -5, 99] });
    await cache.append(k, v, { counts });
    image.append(rows, [2, 0, 4]);
    expect(cache.lengths).toEqual([4, 4, 4]);
    expect(Array.from(await cache.source.state.read()).slice(1, 4)).toEqual([2, 0, 4]);
    await cache.truncate(3); // truncates what the host has counted: the GPU has 2, 0 and 4
    image.truncate([3, 3, 3]);
    // biome-ignore format: one idea
    const strided = tensor(device, [3, 2], { dtype: "i32", data: [1, 9, 0, 9, 2, 9] }).slice(1, 0, 1).view({ shape: [3], strides: [2] });
    await cache.append(k, v, { counts: strided });
    image.append(rows, [1, 0, 2]);
    expect(cache.lengths).toEqual([7, 7, 7]);
    expect(await image.difference(cache)).toBe("the mirrored lengths are 7,7,7, expected 3,0,5");
    cache.destroy();
  });
  it("as numbers of many digits, and for many entries", async () => {
    const device = await testDevice();
    const options = { batch: 70, kvHeads: 1, headDim: 4, capacity: 5 };
    const cache = await createKvCache(device, options);
    const image = new CacheImage(cache, options);
    await append(cache, image, options, 3, integers(5, 70, 0, 3));
    await append(cache, image, options, 2, integers(6, 70, 0, 2));
    expect(await image.difference(cache)).toBeUndefined();
    const long = { batch: 1, kvHeads: 1, headDim: 4, capacity: 1000 };
    const other = await createKvCache(device, long);
    const its = new CacheImage(other, long);
    await append(other, its, long, 700, [691]);
    await append(other, its, long, 700, [301]);
    expect(await its.difference(other)).toBeUndefined();
    for (const used of [cache, other]) used.destroy();
  });
});
