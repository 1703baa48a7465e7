// Calls of caches: their order, the moment that they mean, and that a rejected call has changed
// nothing, on the host or on the GPU.

import { afterEach, beforeAll, describe, expect, it } from "vitest";
import {
  attention,
  createKvCache,
  createPagedKvCache,
  type KvCache,
  type PagedBatch,
  type PagedKvCache,
  type Tensor,
  tensor,
} from "../../src/index.ts";
import { normal } from "../../src/reference/random.ts";
import { CacheImage } from "../support/caches.ts";
import { counted } from "../support/counted.ts";
import { failOnGpuErrors, testDevice } from "../support/device.ts";
import { expectError } from "../support/errors.ts";
import { refusing } from "../support/refusal.ts";

failOnGpuErrors();

const SIZES = { kvHeads: 2, headDim: 8 };
const PAGED = { ...SIZES, entries: 3, pages: 6, pageSize: 4, maxTokens: 16 };
const ROWS = { ...SIZES, batch: 2, capacity: 12 };

let memory: ReturnType<typeof refusing>;
let device: GPUDevice;
beforeAll(async () => {
  memory = refusing(await testDevice());
  device = memory.device;
});

const made: { destroy(): void }[] = [];
afterEach(() => {
  for (const one of made.splice(0)) one.destroy();
});
const keep = <T extends { destroy(): void }>(one: T): T => {
  made.push(one);
  return one;
};

let seed = 1;
const rows = (batch: number, M: number, heads = 2) => {
  const shape = [batch, heads, M, 8];
  const data = normal(seed++, batch * heads * M * 8);
  return { gpu: keep(tensor(device, shape, { data })), data };
};
/** Makes a tensor to which the GPU refuses memory. */
const refused = (batch: number, M: number) =>
  memory.without(() => keep(tensor(device, [batch, 2, M, 8])));
const constant = (batch: number, M: number, value: number) =>
  keep(tensor(device, [batch, 2, M, 8], { data: new Float32Array(batch * 2 * M * 8).fill(value) }));

const contiguous = async () => {
  const cache = keep(await createKvCache(device, ROWS));
  return { cache, image: new CacheImage(cache, ROWS) };
};
const paged = async () => keep(await createPagedKvCache(device, PAGED));

/** What the host knows of a paged cache. */
const known = (cache: PagedKvCache) => ({
  lengths: cache.lengths,
  free: cache.freePages,
  pages: [0, 1, 2].map((entry) => cache.pagesOf(entry)),
});

/** Expects that the GPU has the same lengths and pages of a batch as the host. */
async function expectTold(
  cache: PagedKvCache,
  batch: PagedKvCache | PagedBatch,
  entries: readonly number[],
) {
  const state = Array.from(await batch.source.state.read());
  for (const [row, entry] of entries.entries()) {
    const at = 1 + row * (1 + batch.source.pagesPerEntry);
    const pages = cache.pagesOf(entry);
    expect(state.slice(at, at + 1 + pages.length), `row ${row}`).toEqual([
      cache.lengths[entry],
      ...pages,
    ]);
  }
}

/** Returns the value of v that attention finds for entry `entry`, whose values are all the same. */
async function entryValue(cache: PagedKvCache, entry: number): Promise<number> {
  const batch = keep(await cache.batch([entry]));
  const q = rows(1, 1);
  const { output } = await attention(q.gpu, batch, {});
  return (await keep(output).read())[0];
}

describe("an append that is rejected", () => {
  it("for memory that was refused leaves the pages of others alone", async () => {
    const cache = await paged();
    const zero = keep(await cache.batch([0]));
    const one = keep(await cache.batch([1]));
    const ones = constant(1, 3, 1);
    await zero.append(ones, ones);
    for (const M of [3, 3]) {
      // The first time the call compiles its kernel, the second time its plan is kept.
      const before = known(cache);
      const none = refused(1, M);
      const rejected = one.append(none, ones);
      expect(cache.lengths).toEqual([3, 3, 0]); // as asked for
      await expectError(() => rejected, "out-of-memory", "tensor: no memory left");
      expect(known(cache)).toEqual(before);
      const sevens = constant(1, M, 7);
      await one.append(sevens, sevens);
      expect([await entryValue(cache, 0), await entryValue(cache, 1)]).toEqual([1, 7]);
      cache.free(1);
    }
  });

  it("to a contiguous cache is not counted, whether its plan is kept or not", async () => {
    const { cache, image } = await contiguous();
    const good = async (M: number) => {
      const k = rows(2, M);
      const v = rows(2, M);
      await cache.append(k.gpu, v.gpu);
      image.append({ k: k.data, v: v.data, M });
    };
    for (let turn = 0; turn < 2; turn++) {
      const lengths = cache.lengths;
      const v = rows(2, 2).gpu;
      await expectError(() => cache.append(refused(2, 2), v), "out-of-memory", /no memory left/);
      await expectError(() => cache.append(v, refused(2, 2)), "out-of-memory", /no memory left/);
      const gone = rows(2, 2).gpu;
      gone.destroy();
      await expectError(
        () => cache.append(gone, v),
        "destroyed",
        "kvCache append: k: the tensor was destroyed.",
      );
      await expectError(
        () => cache.append(v, rows(2, 3).gpu),
        "argument",
        /^kvCache append: v must be/,
      );
      await expectError(
        () => cache.append(v, v, { counts: [0, 3] }),
        "argument",
        /^kvCache append: counts must be/,
      );
      await expectError(
        () => cache.append(null as unknown as Tensor, v),
        "argument",
        "kvCache append: k must be a Tensor; make one with tensor().",
      );
      expect(cache.lengths).toEqual(lengths);
      await good(2);
    }
    expect(await image.difference(cache)).toBeUndefined();
  });

  it("by the GPU, for the caller destroyed its buffer, is taken back", async () => {
    const cache = await paged();
    const k = rows(3, 2).gpu;
    await cache.append(k, k, { counts: [2, 1, 0] });
    const buffer = device.createBuffer({ size: 4 * 3 * 2 * 2 * 8, usage: 128 });
    const dead = tensor(device, [3, 2, 2, 8], { buffer });
    buffer.destroy();
    const before = known(cache);
    await expectError(() => cache.append(dead, k), "validation", /destroyed/);
    expect(known(cache)).toEqual(before);
    await cache.append(k, k);
    await expectTold(cache, cache, [0, 1, 2]);
  });

  it("does not keep those behind it from their turn, nor change what they mean", async () => {
    const cache = await paged();
    const k = rows(3, 4).gpu;
    const results = [
      cache.append(k, k, { counts: [4, 2, 0] }),
      cache.append(refused(3, 4), k, { counts: [4, 4, 4] }),
      cache.append(k, k, { counts: [4, 4, 4] }),
      // these are too many pages, if the second append had got its own
      cache.append(k, k, { counts: [0, 4, 4] }),
    ];
    cache.truncate(0, 7);
    const settled = await Promise.allSettled(results);
    expect(settled.map(({ status }) => status)).toEqual([
      "fulfilled",
      "rejected",
      "fulfilled",
      "rejected",
    ]);
    expect(cache.lengths).toEqual([7, 6, 4]);
    await cache.append(k, k, { counts: [1, 0, 0] });
    await expectTold(cache, cache, [0, 1, 2]);
  });

  it("takes the growth that it asked for with it", async () => {
    const { device: mine, buffers } = counted(device);
    const cache = await createKvCache(mine, { ...ROWS, capacity: 4, maxCapacity: 200 });
    const own = (value: number) =>
      keep(tensor(mine, [2, 2, 4, 8], { data: new Float32Array(2 * 2 * 4 * 8).fill(value) }));
    const k = own(2);
    await cache.append(k, k);
    const before = { source: cache.source, capacity: cache.capacity, buffers: buffers() };
    const buffer = mine.createBuffer({ size: 4 * 2 * 2 * 4 * 8, usage: 128 });
    const dead = tensor(mine, [2, 2, 4, 8], { buffer });
    buffer.destroy();
    await expectError(() => cache.append(dead, k), "validation", /destroyed/);
    expect({ source: cache.source, capacity: cache.capacity, buffers: buffers() }).toEqual(before);
    await cache.append(k, k);
    expect([cache.lengths, cache.capacity]).toEqual([[8, 8], 64]);
    expect(Array.from((await cache.source.k.read()).slice(0, 64))).toEqual(new Array(64).fill(2));
    cache.destroy();
  });
});

describe("a call means the moment when it was made", () => {
  it("whatever a batch selects afterwards", async () => {
    const cache = await paged();
    const batch = keep(await cache.batch([0]));
    const k = rows(1, 2).gpu;
    const entries = [2];
    const first = batch.append(k, k);
    batch.select(entries);
    entries[0] = 1;
    const second = batch.append(k, k);
    expect(cache.lengths).toEqual([2, 0, 2]);
    await Promise.all([first, second]);
    expect(cache.lengths).toEqual([2, 0, 2]);
    const { output } = await attention(rows(1, 1).gpu, batch);
    keep(output);
    await expectTold(cache, batch, [2]);
  });

  it("with the numbers in its arrays", async () => {
    const { cache, image } = await contiguous();
    const k = rows(2, 3);
    const v = rows(2, 3);
    const counts = [3, 1];
    const limits = new Int32Array([2, 9]);
    const order = [1, 0];
    const calls = [
      cache.append(k.gpu, v.gpu, { counts }),
      cache.truncate(limits),
      cache.reorder(order),
    ];
    counts.fill(0);
    limits.fill(0);
    order.fill(0);
    expect(cache.lengths).toEqual([1, 2]);
    await Promise.all(calls);
    expect(cache.lengths).toEqual([1, 2]);
    await cache.reorder([1, 0]);
    image.append({ k: k.data, v: v.data, M: 3 }, [3, 1]);
    image.truncate([2, 9]);
    expect(Array.from(await cache.source.state.read()).slice(0, 3)).toEqual([1, 2, 1]);
  });

  it("with what its tensors hold, also if these are overwritten or destroyed", async () => {
    for (const kept of [false, true]) {
      const { cache, image } = await contiguous();
      if (kept) {
        const k = rows(2, 2);
        const v = rows(2, 2);
        await cache.append(k.gpu, v.gpu);
        image.append({ k: k.data, v: v.data, M: 2 });
      }
      const k = rows(2, 2);
      const v = rows(2, 2);
      const calls: Promise<void>[] = [];
      for (let turn = 0; turn < 3; turn++) {
        const next = { k: normal(seed++, 64), v: normal(seed++, 64), M: 2 };
        device.queue.writeBuffer(k.gpu.buffer, 0, next.k as Float32Array<ArrayBuffer>);
        device.queue.writeBuffer(v.gpu.buffer, 0, next.v as Float32Array<ArrayBuffer>);
        calls.push(cache.append(k.gpu, v.gpu));
        image.append(next);
      }
      k.gpu.destroy();
      v.gpu.destroy();
      await Promise.all(calls);
      expect(await image.difference(cache)).toBeUndefined();
    }
  });

  it("and the calls before it: appends, cuts, forks, growth", async () => {
    const { cache } = await contiguous();
    const k = rows(2, 4);
    const v = rows(2, 4);
    const calls: Promise<unknown>[] = [
      cache.append(k.gpu, v.gpu),
      cache.reset(),
      cache.append(k.gpu, v.gpu),
    ];
    const forked = cache.fork({ lengths: [3, 1] });
    calls.push(cache.truncate([1, 3]), cache.append(k.gpu, v.gpu), cache.append(k.gpu, v.gpu));
    const full = cache.append(k.gpu, v.gpu);
    calls.push(cache.grow(20), cache.append(k.gpu, v.gpu));
    expect(cache.lengths).toEqual([13, 15]);
    await expectError(
      () => full,
      "limit",
      /the cache is full: entry 0 has 9 of 12 tokens, and 4 more/,
    );
    await Promise.all(calls);
    const fork = keep(await forked);
    expect([cache.lengths, cache.capacity, fork.lengths]).toEqual([[13, 15], 20, [3, 1]]);
    expect(Array.from(await fork.source.state.read()).slice(1, 3)).toEqual([3, 1]);
    expect(Array.from(await cache.source.state.read()).slice(1, 3)).toEqual([13, 15]);
    const stored = await cache.source.k.read();
    expect(stored.slice(8 * 9, 8 * 13)).toEqual(k.data.slice(0, 32));
  });

  it("and the pages of then, though others are freed before its turn", async () => {
    const cache = await paged();
    const k = constant(3, 4, 1);
    const v = constant(3, 4, 1);
    const first = cache.append(k, v, { counts: [4, 3, 0] });
    cache.fork(1, 2);
    cache.free(0);
    const twos = constant(3, 4, 2);
    const second = cache.append(twos, twos, { counts: [4, 0, 1] });
    cache.truncate(0, 2);
    cache.reorder([1, 0, 2]);
    expect(() => cache.fork(0, 1)).toThrow(
      "entry 1 must be another one than 0, and empty; it has 2 tokens",
    );
    expect(cache.lengths).toEqual([3, 2, 4]);
    await Promise.all([first, second]);
    expect(cache.lengths).toEqual([3, 2, 4]);
    expect([await entryValue(cache, 0), await entryValue(cache, 1)]).toEqual([1, 2]);
    const third = await entryValue(cache, 2);
    expect(third).toBeGreaterThan(1);
    expect(third).toBeLessThan(2);
  });

  it("of attention too: it sees the appends before it, and none after", async () => {
    const cache = await paged();
    const batch = keep(await cache.batch([0]));
    const ones = constant(1, 2, 1);
    const threes = constant(1, 2, 3);
    const q = rows(1, 1).gpu;
    const calls = [batch.append(ones, ones)];
    const looked = attention(q, batch);
    batch.select([1]);
    calls.push(batch.append(threes, threes));
    const other = attention(q, batch);
    cache.free(0);
    const [{ output }, { output: later }] = await Promise.all([looked, other]);
    await Promise.all(calls);
    expect([(await keep(output).read())[0], (await keep(later).read())[0]]).toEqual([1, 3]);
    expect(cache.lengths).toEqual([0, 2, 0]);
  });
});

describe("what is encoded", () => {
  it("while calls wait is refused, and nothing is counted", async () => {
    const { cache } = await contiguous();
    const k = rows(2, 1).gpu;
    const plan = keep(await cache.planAppend({ k, v: k }));
    const encoder = device.createCommandEncoder();
    const waiting = cache.append(k, k);
    await expectError(
      () => plan.encode(encoder),
      "argument",
      "kvCache append: 1 calls of kvCache are not done yet, and what is encoded now would run before them. Await append(), truncate(), attention() and the like before you encode.",
    );
    await expectError(
      () => cache.encodeTruncate(encoder, 0),
      "argument",
      /^kvCache\.encodeTruncate: 1 calls of kvCache/,
    );
    expect(cache.lengths).toEqual([1, 1]);
    await waiting;
    plan.encode(encoder);
    expect(cache.lengths).toEqual([2, 2]);
    device.queue.submit([encoder.finish()]);
    expect(Array.from(await cache.source.state.read()).slice(1, 3)).toEqual([2, 2]);
  });

  it.each([[null], [undefined], [{}], [5], ["pass"], [{ dispatchWorkgroups: 1 }]])(
    "into %j is refused, and nothing is counted",
    async (target) => {
      const wrong = target as unknown as GPUCommandEncoder;
      const { cache } = await contiguous();
      const pages = await paged();
      const k = rows(2, 1).gpu;
      const k3 = rows(3, 1).gpu;
      const message = /encode takes a GPUComputePassEncoder or a GPUCommandEncoder, got/;
      const plan = keep(await cache.planAppend({ k, v: k }));
      const pagedPlan = keep(await pages.planAppend({ k: k3, v: k3 }));
      const before = known(pages);
      await expectError(() => plan.encode(wrong), "argument", message);
      await expectError(() => pagedPlan.encode(wrong), "argument", message);
      await expectError(() => cache.encodeTruncate(wrong, 0), "argument", message);
      expect([cache.lengths, known(pages)]).toEqual([[0, 0], before]);
    },
  );

  // The first commands of an append tell the GPU of pages, the others are those of the append
  // itself.
  it.each([1, 2, 3, 4])(
    "and fails midway, at command %d, is taken back, and the GPU is told everything again",
    async (last) => {
      const cache = await paged();
      const k = rows(3, 2).gpu;
      const plan = keep(await cache.planAppend({ k, v: k }));
      const before = known(cache);
      let commands = 0;
      const broken = {
        setPipeline() {},
        setBindGroup() {
          if (++commands === last) throw new Error("no more");
        },
        dispatchWorkgroups() {},
      } as unknown as GPUComputePassEncoder;
      expect(() => plan.encode(broken)).toThrow("no more");
      expect(known(cache)).toEqual(before);
      await cache.append(k, k);
      await expectTold(cache, cache, [0, 1, 2]);
    },
  );

  // Refused memory of q is known before anything is encoded, that of a new output only once all is
  // submitted.
  it.each(["q", "output"])(
    "by an attention that is rejected for its %s is not taken for what the GPU knows",
    async (name) => {
      const cache = await paged();
      const k = rows(3, 2).gpu;
      await cache.append(k, k);
      cache.free(0);
      cache.fork(1, 0);
      const q = name === "q" ? refused(3, 1) : rows(3, 1).gpu;
      memory.refuse(({ label }) => label === "attention output");
      await expectError(() => attention(q, cache), "out-of-memory", /no memory left/);
      memory.refuse(() => false);
      const { output } = await attention(rows(3, 1).gpu, cache);
      keep(output);
      await expectTold(cache, cache, [0, 1, 2]);
    },
  );
});

describe("calls of a cache that is destroyed meanwhile", () => {
  it("are rejected, and leave nothing behind", async () => {
    const { device: mine, buffers } = counted(device);
    const cache: KvCache = await createKvCache(mine, ROWS);
    const k = keep(tensor(mine, [2, 2, 1, 8]));
    const calls = [
      cache.append(k, k),
      cache.append(k, k),
      cache.truncate(0),
      cache.fork(),
      cache.grow(20),
    ];
    cache.destroy();
    const settled = await Promise.allSettled(calls);
    expect(settled.map((one) => one.status === "rejected" && one.reason.code)).toEqual(
      new Array(5).fill("destroyed"),
    );
    expect(buffers()).toBe(1); // k
  });

  it("at the end of a block that has it by `using`", async () => {
    const { device: mine, buffers } = counted(device);
    {
      const cache = await createPagedKvCache(mine, PAGED);
      const batch = await cache.batch([1]);
      batch[Symbol.dispose]();
      expect([batch.destroyed, cache.destroyed]).toEqual([true, false]);
      cache[Symbol.dispose]();
      const rowsCache = await createKvCache(mine, ROWS);
      rowsCache[Symbol.dispose]();
      expect([cache.destroyed, rowsCache.destroyed]).toEqual([true, true]);
    }
    expect(buffers()).toBe(0);
  });
});
