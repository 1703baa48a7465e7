// What caches refuse, by code and whole message. Nothing is counted, and nothing is left behind.

import { afterEach, describe, expect, it } from "vitest";
import { createKvCache, type KvCache, type KvCacheOptions, tensor } from "../../src/index.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, plainDevice, testDevice, withLimits } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const SIZES = { batch: 2, kvHeads: 2, headDim: 8 };
const made: { destroy(): void }[] = [];
afterEach(() => {
  for (const one of made.splice(0)) one.destroy();
});
const keep = <T extends { destroy(): void }>(one: T): T => {
  made.push(one);
  return one;
};
const cacheOf = async (options: Partial<KvCacheOptions> = {}): Promise<KvCache> =>
  keep(await createKvCache(await testDevice(), { ...SIZES, capacity: 12, ...options }));

describe("createKvCache", () => {
  it.each([
    [
      undefined,
      "kvCache: a cache is made from { batch, kvHeads, headDim, capacity, ... }, got undefined.",
    ],
    [
      { ...SIZES, batch: 0, capacity: 4 },
      "kvCache: batch must be a whole number from 1 to 536870911, got 0.",
    ],
    [
      { ...SIZES, headDim: 8.5, label: "c" },
      "c: headDim must be a whole number from 1 to 536870911, got 8.5.",
    ],
    [SIZES, "kvCache: capacity must be a whole number from 1 to 16777215, got undefined."],
    [
      { ...SIZES, capacity: 8, maxCapacity: 4 },
      "kvCache: maxCapacity must be a whole number from 8 to 16777215, got 4.",
    ],
    [
      { ...SIZES, capacity: 8, sinkTokens: 4 },
      "kvCache: ring and sinkTokens are for caches with a window; give window, or leave them out.",
    ],
    [
      { ...SIZES, window: 8, ring: 8 },
      "kvCache: ring must be a whole number from 9 to 536870911, got 8.",
    ],
    [
      { ...SIZES, capacity: 8, dtype: "fp8" },
      'kvCache: dtype must be "f32", "f16", "bf16", "int8" or "int4", got "fp8".',
    ],
    [
      { ...SIZES, capacity: 8, groupSize: 8 },
      "kvCache: groupSize is for int8 and int4; rows of f32 have no scales.",
    ],
    [
      { ...SIZES, capacity: 8, dtype: "int8", vDim: 24, groupSize: { v: 16 } },
      "kvCache: groupSize of v must be 24, its head dim, or a multiple of 8 that divides it, got 16.",
    ],
    [
      { ...SIZES, capacity: 8, qkNorm: true },
      "kvCache: qkNorm must be { q?, k?, epsilon? }, got true.",
    ],
    [
      { ...SIZES, capacity: 8, qkNorm: { k: [1, 2] } },
      "kvCache: qkNorm.k must be 8 finite numbers, one a channel, got 2.",
    ],
    [
      { ...SIZES, capacity: 8, qkNorm: { epsilon: -1 } },
      "kvCache: qkNorm.epsilon must be a number from 0 up, got -1.",
    ],
    [
      { ...SIZES, capacity: 2 ** 23 + 1, rotary: {} },
      "kvCache: rotary positions end at 8388608; a capacity of 8388609 goes beyond.",
    ],
    [
      { ...SIZES, capacity: 8, rotary: { rotaryDim: 12 } },
      "kvCache: rotary: rotaryDim must be an even number from 2 to the head dim 8, got 12.",
    ],
  ])("%j", async (options, message) => {
    const { device, buffers } = counted(await testDevice());
    await expectError(() => createKvCache(device, options as KvCacheOptions), "argument", message);
    expect(buffers()).toBe(0);
  });
  it("memory that the device cannot bind", async () => {
    const { device, buffers } = counted(
      withLimits(await testDevice(), { maxStorageBufferBindingSize: 4096 }),
    );
    await expectError(
      () => createKvCache(device, { ...SIZES, capacity: 100 }),
      "limit",
      /^kvCache: k spans 12800 bytes; this device binds at most 4096 at a time/,
    );
    expect(buffers()).toBe(0);
  });
});

describe("appends", () => {
  const spec = (M = 1, heads = 2) => ({ shape: [2, heads, M, 8] });
  it.each([
    [
      { k: spec(), v: spec(2) },
      {},
      "kvCache append: v must be [2, 2, 1, 8] for kvCache, got [2, 2, 2, 8].",
    ],
    [
      { k: { shape: [1, 2, 1, 8] }, v: spec() },
      {},
      "kvCache append: k must be [2, 2, 1, 8] for kvCache, got [1, 2, 1, 8].",
    ],
    [
      { k: { ...spec(), dtype: "u32" }, v: spec() },
      {},
      "kvCache append: k must be f32, f16 or bf16, got u32.",
    ],
    [
      { k: spec(), v: spec(), q: spec() },
      {},
      "kvCache append: kvCache neither normalises nor rotates rows, so q would stay as it is; leave q out.",
    ],
    [
      { k: spec(), v: spec(), q: spec(1, 3) },
      { rotary: {} },
      "kvCache append: q must have a multiple of the cache's 2 heads, got 3 (q is [2,3,1,8]).",
    ],
    [
      { k: spec(), v: spec(), qOutput: spec() },
      { rotary: {} },
      "kvCache append: qOutput is given, but no q to be written there.",
    ],
    [
      { k: spec(), v: spec(), positionOffset: 4 },
      { qkNorm: {} },
      "kvCache append: kvCache does not rotate rows; leave positionIds and positionOffset out.",
    ],
    [
      { k: spec(), v: spec(), positionIds: { shape: [2, 1], dtype: "i32" } },
      { rotary: { sections: [2, 1, 1] } },
      "kvCache append: positionIds must be [3, 2, 1], got [2, 1].",
    ],
    [
      { k: spec(), v: spec(), counts: { shape: [3], dtype: "i32" } },
      {},
      "kvCache append: counts must be [2] one a batch entry, got [3].",
    ],
  ])("%j to a cache with %j", async (problem, options, message) => {
    const cache = await cacheOf(options as Partial<KvCacheOptions>);
    await expectError(
      () => cache.planAppend(problem as Parameters<KvCache["planAppend"]>[0]),
      "argument",
      message,
    );
  });

  it("of the wrong tensors, counts and memory", async () => {
    const device = await testDevice();
    const cache = await cacheOf();
    const [k, v] = [0, 1].map(() => keep(tensor(device, [2, 2, 3, 8])));
    const plan = keep(await cache.planAppend({ k: { shape: [2, 2, 3, 8] }, v }));
    const encoder = device.createCommandEncoder();
    const refused = (
      bindings: Parameters<typeof plan.encode>[1],
      code: "argument" | "overlap",
      message: string,
    ) => expectError(() => plan.encode(encoder, bindings), code, message);
    await refused(
      {},
      "argument",
      "kvCache append: k is missing: the plan was made without a tensor for it.",
    );
    await refused(
      { k, counts: [1, 4] },
      "argument",
      "kvCache append: counts must be 2 whole numbers (one a batch entry) from 0 to 3, the rows of k, or a tensor of them, got [1, 4].",
    );
    const counts = keep(tensor(device, [2], { dtype: "i32" }));
    await refused(
      { k, counts },
      "argument",
      "kvCache append: the plan was made without a tensor for counts.",
    );
    await refused(
      { k: cache.source.v.slice(2, 0, 3) },
      "argument",
      "kvCache append: k has strides [192,96,8,1]; the plan was made for [48,24,8,1].",
    );
    const own = cache.source.k.view({ shape: [2, 2, 3, 8] });
    await refused(
      { k: own },
      "overlap",
      "kvCache append: k is in the memory of kvCache; copy rows within a cache with forkEntry().",
    );
    const counted = keep(await cache.planAppend({ k, v, counts }));
    await expectError(
      () => counted.encode(encoder, { k, counts: cache.source.state.slice(0, 0, 2) }),
      "overlap",
      /counts is in the memory of kvCache/,
    );
    expect(cache.lengths).toEqual([0, 0]);
    plan.encode(encoder, { k });
    expect(cache.lengths).toEqual([3, 3]);
    device.queue.submit([encoder.finish()]);
  });

  it("with q in the buffer of k need another place for it", async () => {
    const device = await testDevice();
    const cache = await cacheOf({ rotary: {} });
    const packed = keep(tensor(device, [2, 1, 6, 8]));
    const part = (at: number) => packed.slice(2, at, at + 2).permute(0, 2, 1, 3);
    const problem = { k: part(2), v: part(4), q: part(0) };
    await expectError(
      () => cache.append(problem.k, problem.v, { q: problem.q }),
      "overlap",
      "kvCache append: q and k are in the same GPUBuffer, and WebGPU lets a kernel write no part of a buffer that it reads. Give q a buffer of its own.",
    );
    expect(cache.lengths).toEqual([0, 0]);
    const qOutput = keep(tensor(device, [2, 2, 1, 8]));
    await cache.append(problem.k, problem.v, { q: problem.q, qOutput });
    expect(cache.lengths).toEqual([1, 1]);
  });
  it("bind no more than 8 storage buffers, if q is rotated in place or positions are the cache's", async () => {
    const device = await plainDevice({ requiredLimits: { maxStorageBuffersPerShaderStage: 8 } });
    const cache = await createKvCache(device, { ...SIZES, capacity: 4, rotary: {}, qkNorm: {} });
    const ids = { positionIds: { shape: [2, 1], dtype: "i32" as const } };
    const problem = { k: spec(), v: spec(), q: spec() };
    for (const plan of [
      await cache.planAppend({ ...problem, qOutput: spec() }),
      await cache.planAppend({ ...problem, ...ids }),
    ]) {
      plan.destroy();
    }
    await expectError(
      () => cache.planAppend({ ...problem, ...ids, qOutput: spec() }),
      "limit",
      /^kvCache append: this combination of options binds 9 storage buffers .*; the device allows 8/,
    );
    cache.destroy();
    device.destroy();
  });
});

describe("caches", () => {
  it("refuse lengths, entries and capacities that are none", async () => {
    const cache = await cacheOf();
    await expectError(
      () => cache.truncate([1]),
      "argument",
      "kvCache.truncate: lengths must be a whole number from 0 up, or 2 of them (one a batch entry), got [1].",
    );
    await expectError(
      () => cache.fork({ lengths: -1 }),
      "argument",
      "kvCache.fork: lengths must be a whole number from 0 up, or 2 of them (one a batch entry), got -1.",
    );
    await expectError(
      () => cache.forkEntry(0, 2),
      "argument",
      "kvCache.forkEntry: to must be a batch entry, 0 to 1, got 2.",
    );
    await expectError(
      () => cache.forkEntry(0, 1, 0.5),
      "argument",
      "kvCache.forkEntry: tokens must be a whole number from 0 up, got 0.5.",
    );
    await expectError(
      () => cache.grow(4),
      "argument",
      "kvCache.grow: capacity must be a whole number from 12, what it is, to 16777215, got 4.",
    );
  });
  it("that were destroyed say so, and so do their plans", async () => {
    const device = await testDevice();
    const cache = await cacheOf();
    const [k, v] = [0, 1].map(() => keep(tensor(device, [2, 2, 1, 8])));
    const plan = await cache.planAppend({ k, v });
    const other = await cache.planAppend({ k, v });
    other.destroy();
    const encoder = device.createCommandEncoder();
    await expectError(
      () => other.encode(encoder),
      "destroyed",
      "kvCache append: the plan was destroyed.",
    );
    cache.destroy();
    await expectError(
      () => plan.encode(encoder),
      "destroyed",
      "kvCache append: the cache was destroyed.",
    );
    await expectError(() => cache.append(k, v), "destroyed", "kvCache: the cache was destroyed.");
    await expectError(() => cache.truncate(0), "destroyed", "kvCache: the cache was destroyed.");
    await expectError(() => cache.fork(), "destroyed", "kvCache: the cache was destroyed.");
    await expectError(() => cache.grow(40), "destroyed", "kvCache: the cache was destroyed.");
    plan.destroy();
  });
});
