// The kinds of caches under one interface, for histories that happen to each of them.

import type { KvSourceOwner } from "../../src/attention/kv_source.ts";
import {
  type AppendOptions,
  type AppendProblem,
  type CacheAppendPlan,
  type CacheDtype,
  createKvCache,
  createPagedKvCache,
  type PagedBatch,
  type Tensor,
} from "../../src/index.ts";
import { EPSILON, normWeights, type RowTransform } from "./cache_rows.ts";
import { defined } from "./features.ts";

/** A cache as plain data. */
export interface CacheMake extends RowTransform {
  readonly place: "rows" | "ring" | "paged";
  readonly entries: number;
  readonly Hkv: number;
  readonly D: number;
  /** Default D. */
  readonly Dv?: number;
  readonly dtype?: CacheDtype;
  readonly groupSize?: number;
  /** The most tokens of an entry. */
  readonly maxTokens: number;
  /** The number of pages, if it has pages. */
  readonly pages?: number;
  readonly pageSize?: number;
  /** The window of a ring. */
  readonly window?: number;
  readonly ring?: number;
  readonly sinkTokens?: number;
}

/** What a history does with a cache. */
export interface Subject {
  readonly lengths: readonly number[];
  hasRoom(entries: readonly number[], counts: readonly number[]): boolean;
  /** Returns a batch of these entries, or of all entries if the cache has no batches. */
  batch(entries: readonly number[]): Promise<Appendable> | Appendable;
  truncate(encoder: GPUCommandEncoder, entry: number, length: number): void;
  /** Gives an empty entry tokens of another one. */
  fork(from: number, to: number, tokens: number): Promise<void> | void;
  /** Cuts an entry by the cache's own call, which is awaited or synchronous. */
  cut(entry: number, length: number): Promise<void> | undefined;
  reorder(sources: readonly number[]): Promise<void> | void;
  /** Makes good appends to these entries that are encoded and never submitted. */
  resync(encode: (target: Appendable, encoder: GPUCommandEncoder) => Promise<void>): Promise<void>;
  /** Makes what `batch` gave mean other entries, as many as before. */
  select(target: Appendable, entries: readonly number[]): void;
  /** Returns all that the host knows, as text. */
  known(): string;
  readonly isPaged: boolean;
  destroy(): void;
}

export interface Appendable extends KvSourceOwner {
  append(k: Tensor, v: Tensor, options: AppendOptions): Promise<void>;
  planAppend(problem: AppendProblem): Promise<CacheAppendPlan>;
}

export function makeCache(device: GPUDevice, make: CacheMake): Promise<Subject> {
  const { Hkv, D, Dv, dtype, groupSize, rotary, qkNorm } = make;
  const shared = {
    kvHeads: Hkv,
    headDim: D,
    ...defined({ vDim: Dv, dtype, groupSize, rotary }),
    ...(qkNorm && { qkNorm: { q: normWeights("q", D), k: normWeights("k", D), epsilon: EPSILON } }),
  };
  return make.place === "paged"
    ? pagedSubject(device, make, shared)
    : subject(device, make, shared);
}

type Shared = Pick<Parameters<typeof createKvCache>[1], "kvHeads" | "headDim">;

async function subject(device: GPUDevice, make: CacheMake, shared: Shared): Promise<Subject> {
  const { entries, maxTokens, place, window, ring, sinkTokens } = make;
  const rows = place === "ring" ? defined({ window, ring, sinkTokens }) : {};
  const cache = await createKvCache(device, {
    ...shared,
    batch: entries,
    capacity: maxTokens,
    ...rows,
  });
  return {
    get lengths() {
      return cache.lengths;
    },
    hasRoom: (_, counts) =>
      cache.lengths.every((length, entry) => length + counts[entry] <= maxTokens),
    batch: () => cache,
    truncate: (encoder, entry, length) =>
      cache.encodeTruncate(
        encoder,
        cache.lengths.map((other, index) => (index === entry ? length : other)),
      ),
    fork: (from, to, tokens) => cache.forkEntry(from, to, tokens),
    cut: (entry, length) => {
      const limits = cache.lengths.map((_, index) => (index === entry ? length : maxTokens));
      const done = cache.truncate(limits);
      limits.fill(0);
      return done;
    },
    reorder: (sources) => cache.reorder(sources),
    async resync(encode) {
      if (place === "ring") return; // a ring has lost what the tokens would have overwritten
      const before = cache.lengths;
      await encode(cache, device.createCommandEncoder());
      await cache.truncate(before);
    },
    select: () => {},
    known: () => `${cache.lengths}`,
    isPaged: false,
    destroy: () => cache.destroy(),
  };
}

async function pagedSubject(device: GPUDevice, make: CacheMake, shared: Shared): Promise<Subject> {
  const { entries, maxTokens, pages = 1, pageSize = 1 } = make;
  const cache = await createPagedKvCache(device, {
    ...shared,
    entries,
    maxTokens,
    pages,
    pageSize,
  });
  /**
   * One batch of each size, which takes other entries as it is asked. Earlier commands must not
   * notice.
   */
  const batches = new Map<number, PagedBatch>();
  return {
    get lengths() {
      return cache.lengths;
    },
    hasRoom(appended, counts) {
      const longest = appended.every(
        (entry, index) => cache.lengths[entry] + counts[index] <= maxTokens,
      );
      return longest && pagesAfter(cache, entries, pageSize, appended, counts) <= pages;
    },
    async batch(asked) {
      if (asked.length === entries && asked.every((entry, index) => entry === index)) return cache;
      const batch = batches.get(asked.length) ?? (await cache.batch(asked));
      batches.set(asked.length, batch);
      batch.select(asked);
      return batch;
    },
    truncate: (_, entry, length) =>
      length === 0 ? cache.free(entry) : cache.truncate(entry, length),
    fork: (from, to, tokens) => cache.fork(from, to, tokens),
    cut(entry, length) {
      cache.truncate(entry, length);
      return undefined;
    },
    reorder: (sources) => cache.reorder(sources),
    async resync(encode) {
      const before = cache.lengths;
      // A page that is shared and partly filled would be replaced by a copy that never runs: see
      // `resync`.
      const last = before.map((length, entry) =>
        length % pageSize ? cache.pagesOf(entry).at(-1) : undefined,
      );
      const pages = before.flatMap((_, entry) => cache.pagesOf(entry));
      if (
        last.some(
          (page) => page !== undefined && pages.filter((other) => other === page).length > 1,
        )
      )
        return;
      await encode(cache, device.createCommandEncoder());
      for (const [entry, length] of before.entries()) cache.truncate(entry, length);
      cache.resync();
    },
    select(target, asked) {
      if (target !== cache) (target as PagedBatch).select(asked);
    },
    known: () =>
      JSON.stringify([
        cache.lengths,
        cache.freePages,
        cache.lengths.map((_, entry) => cache.pagesOf(entry)),
      ]),
    isPaged: true,
    destroy: () => cache.destroy(),
  };
}

/**
 * Counts the pages in use once tokens are appended: pages that stay as they are, and pages that
 * each entry writes to by itself.
 */
function pagesAfter(
  cache: { readonly lengths: readonly number[]; pagesOf(entry: number): readonly number[] },
  entries: number,
  pageSize: number,
  appended: readonly number[],
  counts: readonly number[],
): number {
  const kept = new Set<number>();
  let own = 0;
  for (let entry = 0; entry < entries; entry++) {
    const count = counts[appended.indexOf(entry)] ?? 0;
    const length = cache.lengths[entry];
    const whole = count > 0 ? Math.floor(length / pageSize) : Math.ceil(length / pageSize);
    for (const page of cache.pagesOf(entry).slice(0, whole)) kept.add(page);
    if (count > 0) own += Math.ceil((length + count) / pageSize) - whole;
  }
  return kept.size + own;
}
