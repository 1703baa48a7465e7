// Caches as their users handle them: tokens taken back, forks, growth, what it costs, and what is
// refused.

import { afterEach, describe, expect, it } from "vitest";
import {
  type AttentionOptions,
  attention,
  createKvCache,
  type KvCache,
  type KvCacheOptions,
  planAttention,
  tensor,
} from "../../src/index.ts";
import { type ReferenceOptions, attention as reference } from "../../src/reference/index.ts";
import { normal } from "../../src/reference/random.ts";
import { CacheImage, type NewRows } from "../support/caches.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const SIZES = { batch: 2, kvHeads: 2, headDim: 8 };
const OPTIONS: KvCacheOptions = { ...SIZES, capacity: 12 };
const RING: KvCacheOptions = { ...SIZES, window: 4, ring: 7, sinkTokens: 2 };
const SPEC = (M: number) => ({ k: { shape: [2, 2, M, 8] }, v: { shape: [2, 2, M, 8] } });

const made: { destroy(): void }[] = [];
afterEach(() => {
  for (const one of made.splice(0)) one.destroy();
});
const keep = <T extends { destroy(): void }>(one: T): T => {
  made.push(one);
  return one;
};

async function cacheOf(options: KvCacheOptions, device?: GPUDevice) {
  const cache = keep(await createKvCache(device ?? (await testDevice()), options));
  return { cache, image: new CacheImage(cache, options) };
}

let seed = 1;
/** Makes M tokens for each entry. */
function tokens(device: GPUDevice, M: number) {
  const make = () => {
    const data = normal(seed++, 2 * 2 * M * 8);
    return { data, gpu: keep(tensor(device, [2, 2, M, 8], { data })) };
  };
  const k = make();
  const v = make();
  return { k: k.gpu, v: v.gpu, rows: { k: k.data, v: v.data, M } };
}

async function append(
  cache: KvCache,
  image: CacheImage,
  M: number,
  counts?: readonly number[],
): Promise<void> {
  const { k, v, rows } = tokens(cache.device, M);
  await cache.append(k, v, counts ? { counts } : {});
  image.append(rows, counts);
}

describe("tokens that are taken back", () => {
  it("make room for others, of each entry its own", async () => {
    const { cache, image } = await cacheOf(OPTIONS);
    await append(cache, image, 5);
    await cache.truncate([2, 9]);
    image.truncate([2, 9]);
    expect(cache.lengths).toEqual([2, 5]);
    await append(cache, image, 3);
    await cache.reset();
    image.truncate([0, 0]);
    await append(cache, image, 1);
    expect(await image.difference(cache)).toBeUndefined();
  });
  it("are so in the order of the commands, whenever these are submitted", async () => {
    const { cache, image } = await cacheOf(OPTIONS);
    const { device } = cache;
    const plan = keep(await cache.planAppend(SPEC(4)));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const limit of [1, 3, 3]) {
      const { k, v, rows } = tokens(device, 4);
      plan.encode(pass, { k, v, counts: [4, 2] });
      cache.encodeTruncate(pass, [limit, 100]);
      image.append(rows, [4, 2]);
      image.truncate([limit, 100]);
    }
    pass.end();
    const { k, v, rows } = tokens(device, 4);
    plan.encode(encoder, { k, v });
    image.append(rows);
    device.queue.submit([encoder.finish()]);
    expect(cache.lengths).toEqual([7, 10]);
    expect(await image.difference(cache)).toBeUndefined();
  });
  it("must not be more than a ring has kept keys for", async () => {
    const { cache, image } = await cacheOf(RING);
    await append(cache, image, 6);
    await cache.truncate(3); // nothing is lost yet
    image.truncate([3, 3]);
    for (const M of [7, 5]) await append(cache, image, M);
    await cache.truncate([12, 15]);
    image.truncate([12, 15]);
    await expectError(
      () => cache.truncate([12, 11]),
      "limit",
      "kvCache: entry 1 had 15 tokens and its ring keeps the last 7; a query after 11 of them would miss keys of its window of 4. Take back at most ring - window = 3 tokens, or all of them with reset().",
    );
    expect(await image.difference(cache)).toBeUndefined();
    await cache.truncate([2, 15]); // sink tokens only: the ring starts anew
    image.truncate([2, 15]);
    await append(cache, image, 4);
    await cache.truncate([4, 100]);
    image.truncate([4, 100]);
    expect(await image.difference(cache)).toBeUndefined();
  });
});

describe("forks", () => {
  it.each([
    ["rows", OPTIONS],
    ["a ring", RING],
    ["int8", { ...OPTIONS, dtype: "int8" }],
  ] as const)("of %s go their own way", async (_, options) => {
    // biome-ignore format: one line
    const { cache, image } = await cacheOf(options);
    await append(cache, image, 5, [5, 3]);
    const fork = keep(await cache.fork({ lengths: [4, 9], label: "other" }));
    expect([fork.lengths, fork.label]).toEqual([[4, 3], "other"]);
    await append(cache, image, 2);
    expect(await image.difference(cache)).toBeUndefined();
    // The fork's memory holds the prefix as it was, and what comes after it.
    const prefix = await cache.source.k.slice(2, 0, 3).read();
    expect(await fork.source.k.slice(2, 0, 3).read()).toEqual(prefix);
    const { k, v } = tokens(cache.device, 1);
    await fork.append(k, v);
    expect(fork.lengths).toEqual([5, 4]);
    expect(Array.from(await fork.source.state.read()).slice(0, 3)).toEqual([1, 5, 4]);
    expect(await image.difference(cache)).toBeUndefined();
    expect(await fork.source.k.slice(2, 0, 3).read()).toEqual(prefix);
  });
  it("of an entry replace another one", async () => {
    const { cache } = await cacheOf({ ...OPTIONS, rotary: {} });
    const { k, v } = tokens(cache.device, 5);
    await cache.append(k, v, { counts: [5, 2] });
    await cache.forkEntry(0, 1, 4);
    expect(cache.lengths).toEqual([5, 4]);
    expect(Array.from(await cache.source.state.read()).slice(0, 3)).toEqual([1, 5, 4]);
    const entry = (which: "k" | "v", b: number) =>
      cache.source[which]
        .slice(0, b, b + 1)
        .slice(2, 0, 4)
        .read();
    expect(await entry("k", 1)).toEqual(await entry("k", 0));
    expect(await entry("v", 1)).toEqual(await entry("v", 0));
    await cache.forkEntry(1, 1, 2);
    expect(cache.lengths).toEqual([5, 2]);
    // Each of the caches owns its angles.
    const fork = await cache.fork();
    fork.destroy();
    await cache.append(k, v, { counts: 1 });
    expect(cache.lengths).toEqual([6, 3]);
  });
});

describe("growth", () => {
  it("keeps all tokens, and plans that were made before", async () => {
    const { cache } = await cacheOf(OPTIONS);
    const { device } = cache;
    const plan = keep(await cache.planAppend(SPEC(3)));
    const encode = () => {
      const { k, v, rows } = tokens(device, 3);
      const encoder = device.createCommandEncoder();
      plan.encode(encoder, { k, v });
      device.queue.submit([encoder.finish()]);
      return rows;
    };
    const rows = [encode(), encode(), encode(), encode()];
    const before = cache.source;
    await expectError(
      encode,
      "limit",
      "kvCache append: the cache is full: entry 0 has 12 of 12 tokens, and 3 more were given. Take tokens back with truncate() or reset(), call grow(), or make the cache with a larger capacity or a window.",
    );
    expect(cache.lengths).toEqual([12, 12]);
    await cache.grow(20);
    // biome-ignore format: one line
    expect([cache.capacity, cache.source.capacity, cache.source === before, before.k.destroyed]).toEqual([20, 20, false, true]);
    rows.push(encode());
    for (const [which, dim] of [
      ["k", 8],
      ["v", 8],
    ] as const) {
      // biome-ignore format: a table
      const values = await cache.source[which].read();
      for (const [index, part] of rows.entries()) {
        for (let head = 0; head < 4; head++) {
          const stored = values.slice(
            (head * 20 + 3 * index) * dim,
            (head * 20 + 3 * index + 3) * dim,
          );
          expect(stored).toEqual(part[which].slice(head * 3 * dim, (head + 1) * 3 * dim));
        }
      }
    }
    await cache.grow(20);
    expect(cache.lengths).toEqual([15, 15]);
  });
  it("happens by itself, up to the largest capacity, in steps that get longer", async () => {
    const device = await testDevice();
    const cache = keep(await createKvCache(device, { ...OPTIONS, capacity: 1, maxCapacity: 170 }));
    const { k, v } = tokens(device, 10);
    const capacities = new Set<number>();
    for (let i = 0; i < 17; i++) {
      await cache.append(k, v);
      capacities.add(cache.capacity);
    }
    expect([...capacities]).toEqual([64, 128, 170]);
    const values = await cache.source.k.read();
    for (let i = 0; i < 17; i++)
      expect(values.slice(i * 80, (i + 1) * 80)).toEqual((await k.read()).slice(0, 80));
    await expectError(
      () => cache.append(k, v),
      "limit",
      /^kvCache append: the cache is full: entry 0 has 170 of 170/,
    );
    expect(cache.lengths).toEqual([170, 170]);
  });
  it("of a ring is not needed: its capacity costs nothing", async () => {
    const { cache, image } = await cacheOf({ ...RING, capacity: 10, maxCapacity: 11 });
    await append(cache, image, 6);
    await append(cache, image, 5);
    await expectError(
      () => append(cache, image, 1),
      "limit",
      /entry 0 has 11 of 11 tokens, and 1 more were given/,
    );
    await expectError(
      () => cache.grow(100),
      "argument",
      "kvCache.grow: a ring does not grow; give createKvCache a larger capacity, which costs it no memory.",
    );
    expect(await image.difference(cache)).toBeUndefined();
  });
  it("is not followed by a plan of attention, which says so", async () => {
    const { cache } = await cacheOf(OPTIONS);
    const q = keep(tensor(cache.device, [2, 2, 1, 8]));
    const plan = keep(await planAttention(cache.device, { q, cache }));
    await cache.grow(20);
    const encoder = cache.device.createCommandEncoder();
    const output = keep(tensor(cache.device, [2, 2, 1, 8]));
    await expectError(
      () => plan.encode(encoder, { output }),
      "destroyed",
      "attention: k: the tensor was destroyed.",
    );
    await expectError(
      () => plan.encode(encoder, { output, cache }),
      "argument",
      "attention: k is f32 [2,2,20,8]; the plan was made for f32 [2,2,12,8].",
    );
  });
});

describe("cost", () => {
  it("of 2,000 tokens: no buffer, pipeline, bind group or read more than the first one", async () => {
    const { device, count, bytes } = counted(await testDevice());
    const cache = keep(
      await createKvCache(device, { ...SIZES, window: 30, ring: 32, rotary: {}, qkNorm: {} }),
    );
    const { k, v } = tokens(device, 1);
    const q = keep(tensor(device, [2, 4, 1, 8], { data: normal(9, 64) }));
    const plan = keep(await cache.planAppend({ ...SPEC(1), q }));
    let encoder = device.createCommandEncoder();
    const encode = () => {
      plan.encode(encoder, { k, v, q });
      plan.encode(encoder, { k, v, q, counts: [1, 0] });
      cache.encodeTruncate(encoder, Math.max(...cache.lengths) - 1);
    };
    encode();
    const before = { ...count, bytes: bytes() };
    for (let i = 1; i < 2000; i++) {
      encode();
      if (i % 250 === 0) {
        device.queue.submit([encoder.finish()]);
        encoder = device.createCommandEncoder();
      }
    }
    expect({ ...count, bytes: bytes() }).toEqual({ ...before, submits: before.submits + 7 });
    device.queue.submit([encoder.finish()]);
    expect(cache.lengths).toEqual([2000, 2000]);
    expect(Array.from(await cache.source.state.read()).slice(0, 3)).toEqual([1, 2000, 2000]);
  });
  it("of memory is what `bytes` says, and destroy() gives it back", async () => {
    const { device, bytes, buffers } = counted(await testDevice());
    for (const options of [OPTIONS, { ...RING, rotary: {}, dtype: "int4" }] as const) {
      const cache = await createKvCache(device, options);
      expect(bytes()).toBe(cache.bytes);
      const { k, v } = tokens(device, 3);
      for (const M of [1, 2, 3]) await cache.append(k.slice(2, 0, M), v.slice(2, 0, M));
      const fork = await cache.fork();
      await cache.forkEntry(0, 1);
      if (options === OPTIONS) await cache.grow(40);
      for (const used of [cache, fork, ...made.splice(0)]) used.destroy();
      expect(buffers()).toBe(0);
    }
  });
  it("of one-liners that are not awaited is their order", async () => {
    const { cache, image } = await cacheOf(OPTIONS);
    await Promise.all([
      append(cache, image, 2),
      append(cache, image, 1),
      append(cache, image, 3, [1, 3]),
    ]);
    expect(await image.difference(cache)).toBeUndefined();
  });
});

describe("attention to a cache", () => {
  const outputOf = async (q: Float32Array, cache: KvCache, options: AttentionOptions) => {
    const { output } = await attention(
      keep(tensor(cache.device, [2, 4, 3, 8], { data: q })),
      cache,
      options,
    );
    return keep(output).read();
  };
  const referenceOf = (q: Float32Array, { k, v, M }: NewRows, options: ReferenceOptions) => {
    const shape = [2, 2, M, 8];
    return reference(
      { data: q, shape: [2, 4, 3, 8] },
      { data: k, shape },
      { data: v, shape },
      options,
    ).output;
  };
  const farthest = (a: ArrayLike<number>, b: Float64Array) =>
    Math.max(...b.map((x, i) => Math.abs(x - a[i])));

  it("of integers is that of the tokens, and off by what these are", async () => {
    const { cache } = await cacheOf({ ...OPTIONS, dtype: "int8" });
    const { k, v, rows } = tokens(cache.device, 7);
    // biome-ignore format: one line
    for (const [begin, end] of [[0, 4], [4, 5], [5, 7]]) await cache.append(k.slice(2, begin, end), v.slice(2, begin, end));
    const q = normal(77, 192);
    const error = farthest(
      await outputOf(q, cache, { causal: true }),
      referenceOf(q, rows, { causal: true }),
    );
    expect(error).toBeLessThan(0.02);
    expect(error).toBeGreaterThan(1e-4);
  });
  it("in a ring sees its window and the sink tokens, also after tokens were taken back", async () => {
    const { cache } = await cacheOf(RING);
    const { k, v, rows } = tokens(cache.device, 14);
    const other = tokens(cache.device, 3);
    const append = (end: number) => {
      const begin = cache.lengths[0];
      return cache.append(k.slice(2, begin, end), v.slice(2, begin, end));
    };
    for (const end of [3, 6, 9, 11]) await append(end);
    await cache.append(other.k, other.v); // a speculation that fails
    await cache.truncate(11);
    await append(14);
    const q = normal(78, 192);
    const seen = { causal: true, window: [4, 0], sinkTokens: 2 } as const;
    expect(farthest(await outputOf(q, cache, seen), referenceOf(q, rows, seen))).toBeLessThan(2e-6);
    await expectError(
      () => outputOf(q, cache, { causal: true, window: [5, 0] }),
      "argument",
      "attention: the cache was made for a window of 4 keys before each query, and may have overwritten older ones; 5 were asked for. Make the cache with that window.",
    );
  });
});
