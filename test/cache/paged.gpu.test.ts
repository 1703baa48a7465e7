// Paged caches as callers meet them: what they refuse, and what they leave behind.

import { describe, expect, it } from "vitest";
import {
  createPagedKvCache,
  type PagedKvCache,
  type PagedKvCacheOptions,
  planAttention,
  tensor,
} from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { product } from "../support/cases.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice, withLimits } from "../support/device.ts";
import { expectError } from "../support/errors.ts";

failOnGpuErrors();

const OPTIONS: PagedKvCacheOptions = {
  entries: 4,
  kvHeads: 2,
  headDim: 8,
  pages: 6,
  pageSize: 4,
  maxTokens: 20,
};
const rows = (device: GPUDevice, batch: number, tokens: number, heads = 2) => {
  const shape = [batch, heads, tokens, 8];
  return tensor(device, shape, { data: normal(tokens, product(shape)) });
};

/** Runs `work` with a cache, and frees it. */
async function withCache<T>(
  work: (cache: PagedKvCache, device: GPUDevice) => Promise<T>,
): Promise<T> {
  const device = await testDevice();
  const cache = await createPagedKvCache(device, OPTIONS);
  try {
    return await work(cache, device);
  } finally {
    cache.destroy();
  }
}

describe("createPagedKvCache", () => {
  it.each<[string, Partial<PagedKvCacheOptions>, string]>([
    [
      "no entries",
      { entries: 0 },
      "pagedKvCache: entries must be a whole number from 1 to 536870911, got 0.",
    ],
    [
      "half a page",
      { pages: 1.5 },
      "pagedKvCache: pages must be a whole number from 1 to 16777216, got 1.5.",
    ],
    [
      "large pages",
      { pageSize: 257 },
      "pagedKvCache: pageSize must be a whole number from 1 to 256, got 257.",
    ],
    [
      "no tokens",
      { maxTokens: 0 },
      "pagedKvCache: maxTokens must be a whole number from 1 to 16777215, got 0.",
    ],
    [
      "groups that do not fit",
      { dtype: "int8", groupSize: 3, label: "mine" },
      "mine: groupSize of k must be 8, its head dim, or a multiple of 8 that divides it, got 3.",
    ],
  ])("refuses %s", async (_, wrong, message) => {
    const { device, buffers } = counted(await testDevice());
    await expectError(
      () => createPagedKvCache(device, { ...OPTIONS, ...wrong }),
      "argument",
      message,
    );
    expect(buffers()).toBe(0);
  });

  it("refuses what it was not given, page tables beyond all numbers, and memory beyond a binding", async () => {
    const { device, buffers } = counted(await testDevice());
    const nothing = undefined as unknown as PagedKvCacheOptions;
    await expectError(
      () => createPagedKvCache(device, nothing),
      "argument",
      "pagedKvCache: a cache is made from { entries, kvHeads, headDim, pages, ... }, got undefined.",
    );
    await expectError(
      () => createPagedKvCache(device, { ...OPTIONS, entries: 4096, pageSize: 1, maxTokens: 4096 }),
      "limit",
      "pagedKvCache: 4096 page tables of 4096 pages are more than 16777216 words. Give larger pages, or fewer maxTokens.",
    );
    const small = withLimits(device, { maxStorageBufferBindingSize: 1024 });
    await expectError(
      () => createPagedKvCache(small, OPTIONS),
      "limit",
      "pagedKvCache: k spans 1536 bytes; this device binds at most 1024 at a time (maxStorageBufferBindingSize). Run batch entries or heads one after the other on slices. To have the adapter's highest, request the device with deviceDescriptor(adapter).",
    );
    expect(buffers()).toBe(0);
  });

  it("frees everything", async () => {
    const { device, buffers, bytes } = counted(await testDevice());
    const cache = await createPagedKvCache(device, { ...OPTIONS, rotary: {}, qkNorm: {} });
    expect(bytes()).toBe(cache.bytes);
    await cache.batch([2, 0]);
    cache.destroy();
    expect(buffers()).toBe(0);
  });
});

describe("entries of a paged cache", () => {
  it("share pages, count them, and hand them back", () =>
    withCache(async (cache, device) => {
      const k = rows(device, 4, 6);
      const append = await cache.planAppend({ k, v: k });
      const encoder = device.createCommandEncoder();
      append.encode(encoder, { counts: [6, 1, 0, 0] });
      expect([cache.lengths, cache.freePages]).toEqual([[6, 1, 0, 0], 3]);
      cache.fork(0, 2);
      cache.fork(0, 3, 4);
      expect([0, 1, 2, 3].map((entry) => cache.pagesOf(entry))).toEqual([[0, 1], [2], [0, 1], [0]]);
      append.encode(encoder, { counts: [0, 0, 1, 1] });
      expect([2, 3].map((entry) => cache.pagesOf(entry))).toEqual([
        [0, 3],
        [0, 4],
      ]);
      cache.truncate(2, 3);
      expect([cache.lengths, cache.freePages]).toEqual([[6, 1, 3, 5], 2]);
      for (const entry of [0, 1, 2, 3]) cache.free(entry);
      expect([cache.lengths, cache.freePages]).toEqual([[0, 0, 0, 0], 6]);
      device.queue.submit([encoder.finish()]);
      append.destroy();
      k.destroy();
    }));

  it("are refused in words, and nothing has changed", () =>
    withCache(async (cache, device) => {
      const k = rows(device, 4, 16);
      const append = await cache.planAppend({ k, v: k });
      const encoder = device.createCommandEncoder();
      append.encode(encoder, { counts: [10, 1, 0, 0] });
      const before = JSON.stringify([
        cache.lengths,
        cache.freePages,
        [0, 1, 2].map((entry) => cache.pagesOf(entry)),
      ]);
      await expectError(
        () => append.encode(encoder, { counts: [0, 0, 9, 0] }),
        "limit",
        "pagedKvCache append: these tokens take 3 more pages, and 2 of 6 are free. Free or truncate entries first, or make a cache with more pages.",
      );
      await expectError(
        () => append.encode(encoder, { counts: [11, 0, 0, 0] }),
        "limit",
        "pagedKvCache append: entry 0 has 10 tokens and no room for 11 more: an entry holds 20 (maxTokens). Truncate or free it first.",
      );
      await expectError(
        () => cache.truncate(4, 0),
        "argument",
        "pagedKvCache.truncate: entries of this cache are whole numbers from 0 to 3, got [4].",
      );
      await expectError(
        () => cache.truncate(1, 2),
        "argument",
        "pagedKvCache.truncate: entry 1 can be cut to 0 up to 1 tokens, got 2.",
      );
      await expectError(
        () => cache.fork(0, 1),
        "argument",
        "pagedKvCache.fork: entry 1 must be another one than 0, and empty; it has 1 tokens. Free it first.",
      );
      await expectError(
        () => cache.fork(1, 2, 3),
        "argument",
        "pagedKvCache.fork: entry 1 has 1 tokens to share, got 3.",
      );
      await expectError(
        () => cache.planAppend({ k, v: k, counts: { shape: [4], dtype: "i32" } }),
        "argument",
        "pagedKvCache append: pages are handed out on the host, which has to know the counts; give them as numbers when the plan is encoded, and leave counts out here.",
      );
      expect(
        JSON.stringify([
          cache.lengths,
          cache.freePages,
          [0, 1, 2].map((entry) => cache.pagesOf(entry)),
        ]),
      ).toBe(before);
      append.destroy();
      k.destroy();
    }));

  it("are in batches that say what is wrong with them", () =>
    withCache(async (cache, device) => {
      const entries = (what: string, got: string) =>
        `pagedKvCache.${what}: entries of this cache are whole numbers from 0 to 3, got [${got}].`;
      await expectError(() => cache.batch([]), "argument", entries("batch", ""));
      await expectError(() => cache.batch([1, 4]), "argument", entries("batch", "1, 4"));
      const batch = await cache.batch([3, 1]);
      await expectError(() => batch.select([0, -1]), "argument", entries("select", "0, -1"));
      await expectError(
        () => batch.select([0]),
        "argument",
        "pagedKvCache.select: the batch is of 2 entries, got 1. Make another one with batch().",
      );
      const k = rows(device, 2, 2);
      const append = await batch.planAppend({ k, v: k });
      batch.select([2, 2]);
      await expectError(
        () => append.encode(device.createCommandEncoder()),
        "argument",
        "pagedKvCache append: entry 2 of the cache is twice in the batch [2,2] and would get tokens twice.",
      );
      append.encode(device.createCommandEncoder(), { counts: [2, 0] });
      expect([batch.entries, batch.lengths, cache.lengths]).toEqual([
        [2, 2],
        [2, 2],
        [0, 0, 2, 0],
      ]);
      batch.destroy();
      await expectError(
        () => batch.select([0, 1]),
        "destroyed",
        "pagedKvCache.select: the batch was destroyed.",
      );
      cache.destroy();
      await expectError(
        () => cache.free(0),
        "destroyed",
        "pagedKvCache.free: the cache was destroyed.",
      );
      await expectError(
        () => cache.batch([0]),
        "destroyed",
        "pagedKvCache.batch: the cache was destroyed.",
      );
      append.destroy();
      k.destroy();
    }));
});

describe("a large cache", () => {
  it("has lengths, page numbers and places in its state beyond 65,536", async () => {
    const device = await testDevice();
    const sizes = {
      entries: 3,
      kvHeads: 1,
      headDim: 4,
      pages: 66_600,
      pageSize: 2,
      maxTokens: 133_000,
    };
    const cache = await createPagedKvCache(device, sizes);
    const tokens = 131_999;
    const shape = [3, 1, tokens, 4];
    const data = normal(1, product(shape));
    const k = tensor(device, shape, { data });
    await cache.append(k, k, { counts: [tokens, 501, 0] });
    cache.fork(1, 2);
    await cache.append(k, k, { counts: [0, 0, 1] });
    const state = await cache.source.state.read();
    const stride = 1 + cache.source.pagesPerEntry;
    for (const entry of [0, 1, 2]) {
      const pages = cache.pagesOf(entry);
      const at = 1 + entry * stride;
      expect(Array.from(state.slice(at, at + 1 + pages.length))).toEqual([
        cache.lengths[entry],
        ...pages,
      ]);
    }
    expect([cache.pagesOf(1).at(-1), cache.pagesOf(2).at(-1)]).toEqual([66_250, 66_251]);
    const row = (entry: number, token: number) =>
      Array.from(data.slice((entry * tokens + token) * 4).slice(0, 4));
    const stored = await cache.source.v.slice(0, 66_250, 66_252).read();
    expect(Array.from(stored)).toEqual([...row(1, 500), 0, 0, 0, 0, ...row(1, 500), ...row(2, 0)]);
    cache.destroy();
    k.destroy();
  });
});

describe("commands that are never submitted", () => {
  it("are made good by truncate and resync", () =>
    withCache(async (cache, device) => {
      const k = rows(device, 4, 5);
      await cache.append(k, k, { counts: [5, 3, 0, 0] });
      const append = await cache.planAppend({ k, v: k });
      append.encode(device.createCommandEncoder(), { counts: [4, 0, 2, 0] });
      cache.truncate(0, 5);
      cache.free(2);
      cache.resync();
      const encoder = device.createCommandEncoder();
      append.encode(encoder, { counts: [0, 0, 0, 5] });
      append.encode(encoder, { counts: [5, 0, 0, 0] });
      device.queue.submit([encoder.finish()]);
      const state = await cache.source.state.read();
      const { pagesPerEntry } = cache.source;
      for (const [entry, length] of cache.lengths.entries()) {
        const pages = cache.pagesOf(entry);
        const at = 1 + entry * (1 + pagesPerEntry);
        expect(Array.from(state.slice(at, at + 1 + pages.length))).toEqual([length, ...pages]);
      }
      expect(cache.lengths).toEqual([10, 3, 0, 5]);
      append.destroy();
      k.destroy();
    }));
});

describe("commands that are never submitted, of entries that get the same pages again", () => {
  it("are made good as well: the GPU is told the pages that it never had", () =>
    withCache(async (cache, device) => {
      const k = rows(device, 4, 5);
      await cache.append(k, k, { counts: [5, 0, 0, 0] });
      const append = await cache.planAppend({ k, v: k });
      append.encode(device.createCommandEncoder(), { counts: [0, 0, 5, 0] });
      const pages = cache.pagesOf(2);
      cache.free(2);
      cache.resync();
      const encoder = device.createCommandEncoder();
      append.encode(encoder, { counts: [0, 0, 5, 0] });
      device.queue.submit([encoder.finish()]);
      expect([cache.pagesOf(2), pages.includes(0)]).toEqual([pages, false]);
      const state = await cache.source.state.read();
      const at = 1 + 2 * (1 + cache.source.pagesPerEntry);
      expect(Array.from(state.slice(at, at + 3))).toEqual([5, ...pages]);
      append.destroy();
      k.destroy();
    }));
});

describe("a serving loop", () => {
  it("of two hundred steps allocates, compiles and reads back nothing", async () => {
    const { device, count, buffers } = counted(await testDevice());
    const cache = await createPagedKvCache(device, { ...OPTIONS, pages: 40, maxTokens: 60 });
    const running = await cache.batch([0, 1]);
    const q = rows(device, 2, 1, 4);
    const k = rows(device, 2, 1);
    const v = rows(device, 2, 1);
    const output = tensor(device, [2, 4, 1, 8]);
    const append = await running.planAppend({ k, v });
    const attend = await planAttention(device, {
      q,
      cache: running,
      causal: true,
      variant: "8x32",
    });
    const token = () => {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      append.encode(pass);
      attend.encode(pass, { output });
      pass.end();
      device.queue.submit([encoder.finish()]);
    };
    token();
    const before = [buffers(), count.buffersMade, count.pipelines, count.bindGroups];
    for (let index = 1; index < 200; index++) {
      // Sequences end and others take their places, some with the beginning of a third one.
      if (cache.lengths[running.entries[0]] === 50) {
        const [ended, other] = running.entries;
        const next = (ended + 2) % 4;
        if (index % 3 === 0) cache.fork(other, next, Math.min(cache.lengths[other], 20));
        running.select([next, other]);
        cache.free(ended);
      }
      if (cache.lengths[running.entries[1]] === 60) cache.truncate(running.entries[1], 7);
      token();
    }
    expect([buffers(), count.buffersMade, count.pipelines, count.bindGroups]).toEqual(before);
    expect(count.submits).toBe(200);
    await device.queue.onSubmittedWorkDone();
    for (const used of [append, attend, cache, q, k, v, output]) used.destroy();
    expect(buffers()).toBe(0);
  });
});
