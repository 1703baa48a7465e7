// The memory of caches: refused, beyond limits, lost, freed again; and entries that change places.

import { afterEach, describe, expect, it } from "vitest";
import { copyEntries } from "../../src/cache/memory.ts";
import {
  createKvCache,
  createPagedKvCache,
  type KvCacheOptions,
  type PagedKvCacheOptions,
  tensor,
} from "../../src/index.ts";
import { integers, normal } from "../../src/reference/random.ts";
import { CacheImage } from "../support/caches.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, newDevice, testDevice, withLimits } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { refusing } from "../support/refusal.ts";

failOnGpuErrors();

const ROWS: KvCacheOptions = { batch: 4, kvHeads: 2, headDim: 8, capacity: 12 };
const RING: KvCacheOptions = {
  batch: 4,
  kvHeads: 2,
  headDim: 8,
  window: 4,
  ring: 7,
  sinkTokens: 2,
};
const PAGED: PagedKvCacheOptions = {
  entries: 4,
  kvHeads: 2,
  headDim: 8,
  pages: 8,
  pageSize: 4,
  maxTokens: 12,
};

const made: { destroy(): void }[] = [];
afterEach(() => {
  for (const one of made.splice(0)) one.destroy();
});
const keep = <T extends { destroy(): void }>(one: T): T => {
  made.push(one);
  return one;
};

let seed = 1;
const rows = (device: GPUDevice, batch: number, M: number) => {
  const data = normal(seed++, batch * 2 * M * 8);
  return { gpu: keep(tensor(device, [batch, 2, M, 8], { data })), data };
};

/** Refuses each buffer that `work` makes, one after the other, until it makes no more of them. */
async function refusedEach(
  work: (device: GPUDevice, arm: () => void) => Promise<unknown>,
): Promise<number> {
  const memory = refusing(await testDevice());
  for (let turn = 0; ; turn++) {
    const { device, buffers } = counted(memory.device);
    let made = -1;
    let refused = false;
    memory.refuse(() => {
      if (made < 0 || made++ !== turn) return false;
      refused = true;
      return true;
    });
    let before = 0;
    const arm = () => {
      before = buffers();
      made = 0;
    };
    let error: unknown;
    try {
      await work(device, arm);
    } catch (caught) {
      error = caught;
    }
    memory.refuse(() => false);
    if (!refused) return turn;
    expect(error, `buffer ${turn}`).toMatchObject({ name: "FoveaError", code: "out-of-memory" });
    expect(buffers(), `buffers left by refusing buffer ${turn}`).toBe(before);
  }
}

describe("memory that the GPU refuses", () => {
  it("to a new cache is out of memory, whichever buffer it is, and nothing is left", async () => {
    const rotated = { rotary: {}, qkNorm: {} };
    const kinds: ((device: GPUDevice) => Promise<{ destroy(): void }>)[] = [
      (device) => createKvCache(device, { ...ROWS, ...rotated }),
      (device) => createPagedKvCache(device, { ...PAGED, ...rotated }),
    ];
    const counts = [5, 6]; // k, v, state, its numbers, angles; pages have numbers, too
    for (const [index, make] of kinds.entries()) {
      const turns = await refusedEach(async (device, arm) => {
        arm();
        keep(await make(device)).destroy();
      });
      expect(turns).toBe(counts[index]);
    }
  });

  it("to what caches do later is, too, and the cache is as it was", async () => {
    const actions: ((cache: Awaited<ReturnType<typeof createKvCache>>) => Promise<unknown>)[] = [
      async (cache) => keep(await cache.fork()),
      (cache) => cache.grow(20),
      (cache) => cache.forkEntry(0, 1),
      (cache) => cache.reorder([1, 0, 2, 3]),
    ];
    const counts = [4, 2, 1, 1];
    for (const [index, action] of actions.entries()) {
      const turns = await refusedEach(async (device, arm) => {
        const cache = keep(await createKvCache(device, ROWS));
        const image = new CacheImage(cache, ROWS);
        const k = rows(device, 4, 3);
        await cache.append(k.gpu, k.gpu);
        image.append({ k: k.data, v: k.data, M: 3 });
        arm();
        try {
          await action(cache);
        } catch (error) {
          expect(await image.difference(cache)).toBeUndefined();
          throw error;
        }
      });
      expect(turns, `${action}`).toBe(counts[index]);
    }
    const batches = await refusedEach(async (device, arm) => {
      const cache = keep(await createPagedKvCache(device, PAGED));
      arm();
      await cache.batch([0, 1]);
    });
    expect(batches).toBe(2);
  });

  it("to an append is, and nothing is counted or left", async () => {
    const turns = await refusedEach(async (device, arm) => {
      const cache = keep(await createPagedKvCache(device, PAGED));
      const k = rows(device, 4, 2).gpu;
      arm();
      try {
        await cache.append(k, k);
      } catch (error) {
        expect([cache.lengths, cache.freePages]).toEqual([[0, 0, 0, 0], 8]);
        throw error;
      }
    });
    // copies of k and v, because the kernel is compiled first; the plan's params
    expect(turns).toBe(3);
    const planned = await refusedEach(async (device, arm) => {
      const cache = keep(await createKvCache(device, ROWS));
      arm();
      keep(await cache.planAppend({ k: { shape: [4, 2, 1, 8] }, v: { shape: [4, 2, 1, 8] } }));
    });
    expect(planned).toBe(1);
  });

  it("for a tensor that an append is planned with is out of memory", async () => {
    const memory = refusing(await testDevice());
    const cache = keep(await createKvCache(memory.device, ROWS));
    const k = memory.without(() => keep(tensor(memory.device, [4, 2, 1, 8])));
    await expectError(
      () => cache.planAppend({ k, v: rows(memory.device, 4, 1).gpu }),
      "out-of-memory",
      /no memory/,
    );
  });
});

describe("sizes beyond all limits", () => {
  it("are refused before anything is allocated, on the GPU or here", async () => {
    const { device, count, buffers } = counted(
      withLimits(await testDevice(), {
        maxStorageBufferBindingSize: 2 ** 32,
        maxBufferSize: 2 ** 32,
      }),
    );
    const before = performance.now();
    await expectError(
      () => createKvCache(device, { batch: 2 ** 27, kvHeads: 1, headDim: 4, capacity: 1 }),
      "limit",
      "kvCache: lengths and counts of 134217728 sequences are more than 16777216 words. Make several caches.",
    );
    await expectError(
      () => createPagedKvCache(device, { ...PAGED, entries: 2 ** 27 }),
      "limit",
      /^pagedKvCache: 134217728 page tables of 3 pages are more than 16777216 words/,
    );
    expect(performance.now() - before).toBeLessThan(1000);
    expect([count.buffersMade, buffers()]).toEqual([0, 0]);
  });

  it.each(["maxStorageBufferBindingSize", "maxBufferSize"] as const)(
    "of v alone by %s, too",
    async (limit) => {
      const { device, count } = counted(withLimits(await testDevice(), { [limit]: 4096 }));
      await expectError(
        () => createKvCache(device, { ...ROWS, vDim: 16 }),
        "limit",
        /^kvCache: v (spans|has) 6144 bytes/,
      );
      await expectError(
        () => createPagedKvCache(device, { ...PAGED, vDim: 24 }),
        "limit",
        /^pagedKvCache: v (spans|has) 6144 bytes/,
      );
      expect(count.buffersMade).toBe(0);
    },
  );

  it("of sequences that one command cannot count", async () => {
    const device = await testDevice();
    const cache = keep(
      await createKvCache(device, { batch: 70_000, kvHeads: 1, headDim: 4, capacity: 1 }),
    );
    const k = keep(tensor(device, [70_000, 1, 1, 4], { data: integers(3, 280_000, -9, 9) }));
    await cache.append(k, k);
    await cache.truncate(cache.lengths.map((_, entry) => (entry > 69_990 ? 0 : 1)));
    const state = await cache.source.state.read();
    expect(Array.from(state.slice(69_988, 69_996))).toEqual([1, 1, 1, 1, 0, 0, 0, 0]);
  });
});

describe("a device that is lost", () => {
  it("while calls wait rejects each of them once", async () => {
    const unhandled: unknown[] = [];
    const note = (event: Event & { reason?: unknown }) => {
      unhandled.push(event.reason);
      event.preventDefault();
    };
    globalThis.addEventListener?.("unhandledrejection", note);
    const device = await newDevice();
    const cache = await createPagedKvCache(device, PAGED);
    const batch = await cache.batch([1]);
    const k = rows(device, 1, 2).gpu;
    const calls: Promise<unknown>[] = [
      createPagedKvCache(device, { ...PAGED, rotary: {} }),
      createKvCache(device, { ...ROWS, rotary: {} }),
      cache.batch([0]),
      batch.append(k, k),
      batch.append(k, k),
      batch.planAppend({ k, v: k }),
    ];
    device.destroy();
    const settled = await Promise.allSettled(calls);
    for (const one of settled) {
      // A call that the GPU had accepted before the loss may resolve.
      if (one.status === "rejected") expect(one.reason).toMatchObject({ name: "FoveaError" });
    }
    expect(settled.some(({ status }) => status === "rejected")).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, 50));
    globalThis.removeEventListener?.("unhandledrejection", note);
    expect(unhandled).toEqual([]);
    const appended = [settled[3], settled[4]].filter(({ status }) => status === "fulfilled").length;
    expect(cache.lengths).toEqual([0, 2 * appended, 0, 0]);
  });
});

describe("reordered entries", () => {
  // biome-ignore format: a table
  const MAPPINGS = [[0, 1, 2, 3], [1, 0, 3, 2], [1, 2, 3, 0], [0, 0, 0, 0], [3, 3, 1, 0], [2, 1, 0, 2]];

  it.each([
    ["rows", ROWS],
    ["a ring", RING],
    ["int8", { ...ROWS, dtype: "int8" }],
    ["f16 of different head dims", { ...ROWS, dtype: "f16", vDim: 5 }],
  ] as const)("of %s are permuted and doubled by any mapping", async (_, options) => {
    const device = await testDevice();
    const cache = keep(await createKvCache(device, options));
    const { vDim = 8 } = options as KvCacheOptions;
    const entries: number[][] = [[], [], [], []]; // the first channel of each token's rows
    const append = async (counts: readonly number[]) => {
      const M = Math.max(...counts);
      const value = (b: number, i: number) => 1 + (entries[b].length + i) * 4 + b;
      const data = (dim: number) =>
        Float32Array.from({ length: 4 * 2 * M * dim }, (_unused, at) => {
          return value(Math.floor(at / dim / M / 2), Math.floor(at / dim) % M);
        });
      const k = keep(tensor(device, [4, 2, M, 8], { data: data(8) }));
      const v = keep(tensor(device, [4, 2, M, vDim], { data: data(vDim) }));
      await cache.append(k, v, { counts });
      for (const [b, count] of counts.entries()) {
        const old = entries[b].length;
        for (let i = 0; i < count; i++) entries[b].push(1 + (old + i) * 4 + b);
      }
    };
    await append([4, 1, 3, 0]);
    for (const mapping of MAPPINGS) {
      await cache.reorder(mapping);
      const before = entries.map((list) => [...list]);
      for (const [to, from] of mapping.entries()) entries[to] = [...before[from]];
      await append([1, 0, 1, 1]);
      expect(cache.lengths).toEqual(entries.map((list) => list.length));
      expect(Array.from(await cache.source.state.read()).slice(1, 5)).toEqual(cache.lengths);
      for (const which of ["k", "v"] as const) {
        const { shape } = cache.source[which];
        const words = await cache.source[which].read();
        const { ring = 0, sinkTokens = 0 } = options as KvCacheOptions;
        for (const [b, tokens] of entries.entries()) {
          for (const [j, token] of tokens.entries()) {
            if (ring && j >= sinkTokens && j < tokens.length - ring) continue;
            const row = ring && j >= sinkTokens ? sinkTokens + ((j - sinkTokens) % ring) : j;
            for (const head of [0, 1]) {
              const at = ((b * 2 + head) * shape[2] + row) * shape[3];
              const bits = new DataView(new Uint32Array([words[at]]).buffer);
              // An integer row begins with its scale, and all its channels are 127.
              const stored = cache.source.quantised ? bits.getFloat32(0, true) * 127 : words[at];
              expect(Math.abs(stored - token), `${which} of token ${j} of entry ${b}`).toBeLessThan(
                1e-4,
              );
            }
          }
        }
      }
    }
  });

  it("are copied in parts, if they are larger than the memory between", async () => {
    const device = await testDevice();
    const tokens = [70, 70, 70];
    const words = integers(8, 3 * 2 * 70 * 4, -1000, 1000);
    const state = keep(tensor(device, [4], { dtype: "i32", data: [1, 5, 6, 7] }));
    const memory = () => keep(tensor(device, [3, 2, 70, 4], { data: words }));
    const source = { k: memory(), v: memory(), state };
    const rows = { dtype: "f32", quantised: undefined, kElements: 4, vElements: 4 } as const;
    const encoder = device.createCommandEncoder();
    const plan = { batch: 3, kvHeads: 2, used: 61, rows };
    const between = copyEntries(device, encoder, plan, { source } as never, [1, 2, 1], 1000);
    expect(between?.size).toBeLessThanOrEqual(1000);
    device.queue.submit([encoder.finish()]);
    between?.destroy();
    expect(Array.from(await state.read())).toEqual([1, 6, 7, 6]);
    for (const stored of [await source.k.read(), await source.v.read()]) {
      for (const [to, from] of [1, 2, 1].entries()) {
        for (const head of [0, 1]) {
          const at = (entry: number, row: number) => ((entry * 2 + head) * tokens[0] + row) * 4;
          expect(stored.slice(at(to, 0), at(to, 61))).toEqual(
            Float32Array.from(words.slice(at(from, 0), at(from, 61))),
          );
          expect(stored.slice(at(to, 61), at(to, 70))).toEqual(
            Float32Array.from(words.slice(at(to, 61), at(to, 70))),
          );
        }
      }
    }
  });

  it("of pages get other owners, and copies when they are written", async () => {
    const device = await testDevice();
    const cache = keep(await createPagedKvCache(device, PAGED));
    const beams = keep(await cache.batch([2, 0, 3]));
    const k = rows(device, 3, 5).gpu;
    await beams.append(k, k, { counts: [5, 3, 1] });
    beams.reorder([0, 0, 1]);
    expect([cache.lengths, cache.freePages]).toEqual([[5, 0, 5, 3], 8 - 3]);
    expect(cache.pagesOf(0)).toEqual(cache.pagesOf(2));
    await beams.append(k, k, { counts: [1, 1, 1] });
    expect([cache.lengths, cache.freePages]).toEqual([[6, 0, 6, 4], 8 - 4]);
    expect(cache.pagesOf(0)[0]).toBe(cache.pagesOf(2)[0]);
    expect(cache.pagesOf(0)[1]).not.toBe(cache.pagesOf(2)[1]);
    cache.reorder([3, 3, 3, 0]);
    expect([cache.lengths, cache.freePages]).toEqual([[4, 4, 4, 6], 8 - 3]);
    for (const entry of [0, 1, 2, 3]) cache.free(entry);
    expect(cache.freePages).toBe(8);
  });

  it("are refused in words", async () => {
    const device = await testDevice();
    const cache = keep(await createKvCache(device, ROWS));
    const paged = keep(await createPagedKvCache(device, PAGED));
    const batch = keep(await paged.batch([1, 1]));
    for (const [wrong, shown] of [
      [[0, 1], "[0, 1]"],
      [undefined, "undefined"],
    ] as const) {
      // biome-ignore format: one line
      await expectError(() => cache.reorder(wrong as never), "argument", `kvCache.reorder: entries must be 4 batch entries, one for each, got ${shown}.`);
    }
    await expectError(
      () => cache.reorder([0, 1, 2, 4]),
      "argument",
      "kvCache.reorder: each of entries must be a batch entry, 0 to 3, got 4.",
    );
    await expectError(
      () => paged.reorder([0, 1]),
      "argument",
      "pagedKvCache.reorder: expected 4 entries, one for each, got 2.",
    );
    await expectError(
      () => batch.reorder([0, 2]),
      "argument",
      "pagedKvCache.reorder: expected 2 rows of the batch, 0 to 1, got [0, 2].",
    );
    await expectError(
      () => batch.reorder([0, 1]),
      "argument",
      /^pagedKvCache\.reorder: entry 1 of the cache is twice/,
    );
  });
});
