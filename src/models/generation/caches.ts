// The keys and values of a session's texts: a cache for each layer of the model, contiguous or in
// pages.

import type { KvCache } from "../../cache/contiguous.ts";
import { createKvCache } from "../../cache/create.ts";
import type { CacheDtype } from "../../cache/options.ts";
import type { PagedBatch } from "../../cache/paged/batch.ts";
import { createPagedKvCache } from "../../cache/paged/create.ts";
import type { PagedKvCache } from "../../cache/paged/paged.ts";
import { check, FoveaError } from "../../errors.ts";
import type { ProgramCache } from "../../training/operations/cached_attention.ts";
import type { CachedRows } from "../definition.ts";

/** How a session keeps keys and values. */
export interface CacheOptions {
  /** In one piece for each text, or in pages that forks share. Default `"contiguous"`. */
  readonly kind?: "contiguous" | "paged";
  /** How elements are stored: f32, f16, bf16, int8 or int4. Default `"f32"`. */
  readonly dtype?: CacheDtype;
  /** Channels that share a scale, if they are quantised. Default the head dim. */
  readonly groupSize?: number;
  /** Tokens of a page, 1 to 256. Default 16. */
  readonly pageSize?: number;
  /** How many forks there may be at a time of a session whose cache is paged. Default 0. */
  readonly forks?: number;
}

/** Sizes of the caches of a session. */
export interface CacheSizes extends Pick<CachedRows, "kvHeads" | "headDim"> {
  readonly layers: number;
  readonly entries: number;
  /** The most tokens of an entry. */
  readonly capacity: number;
}

/** The caches of all layers, which change together. */
export interface LayerCaches {
  readonly layers: readonly ProgramCache[];
  /** Bytes of GPU memory. Forks of a paged cache have it in common. */
  readonly bytes: number;
  /** Takes tokens back: entries that are longer get these lengths. */
  truncate(lengths: readonly number[]): Promise<void>;
  /** Gives entry i the tokens of `entries[i]`. */
  reorder(entries: readonly number[]): Promise<void>;
  /** Others with the same tokens. */
  fork(): Promise<LayerCaches>;
  destroy(): void;
}

/** Makes caches that hold no tokens. Rejects with FoveaError as the engine's do. */
export function makeCaches(
  device: GPUDevice,
  sizes: CacheSizes,
  options: CacheOptions,
  label: string,
): Promise<LayerCaches> {
  const kind = options.kind ?? "contiguous";
  if (kind === "paged") return PagedCaches.make(device, sizes, options, label);
  check(
    options.forks === undefined && options.pageSize === undefined,
    "argument",
    () => `${label}: forks and pageSize belong to caches of kind "paged".`,
  );
  return ContiguousCaches.make(device, sizes, options, label);
}

/** What caches of all kinds are told of their rows. */
const rowsOf = ({ kvHeads, headDim }: CacheSizes, { dtype, groupSize }: CacheOptions) => ({
  kvHeads,
  headDim,
  ...(dtype !== undefined && { dtype }),
  ...(groupSize !== undefined && { groupSize }),
});

/** Makes one for each layer; if one fails, none is left. */
async function forLayers<One extends { destroy(): void }>(
  count: number,
  make: (layer: number) => Promise<One>,
): Promise<One[]> {
  const made = await Promise.allSettled(Array.from({ length: count }, (_, layer) => make(layer)));
  const there = made.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
  const failed = made.find((one) => one.status === "rejected");
  if (!failed) return there;
  for (const one of there) one.destroy();
  throw failed.reason;
}

class ContiguousCaches implements LayerCaches {
  readonly layers: readonly KvCache[];

  private constructor(layers: readonly KvCache[]) {
    this.layers = layers;
  }

  static async make(
    device: GPUDevice,
    sizes: CacheSizes,
    options: CacheOptions,
    label: string,
  ): Promise<ContiguousCaches> {
    const { layers, entries: batch, capacity } = sizes;
    const own = { ...rowsOf(sizes, options), batch, capacity, label: `${label} cache` };
    return new ContiguousCaches(await forLayers(layers, () => createKvCache(device, own)));
  }

  get bytes(): number {
    return this.layers.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  async truncate(lengths: readonly number[]): Promise<void> {
    await Promise.all(this.layers.map((one) => one.truncate(lengths)));
  }

  async reorder(entries: readonly number[]): Promise<void> {
    await Promise.all(this.layers.map((one) => one.reorder(entries)));
  }

  async fork(): Promise<LayerCaches> {
    const { layers } = this;
    return new ContiguousCaches(await forLayers(layers.length, (at) => layers[at].fork()));
  }

  destroy(): void {
    for (const one of this.layers) one.destroy();
  }
}

/** Paged caches that a session and its forks share, and the entries that nobody has. */
interface Pool {
  readonly caches: readonly PagedKvCache[];
  readonly free: number[];
  users: number;
}

class PagedCaches implements LayerCaches {
  readonly layers: readonly PagedBatch[];
  readonly #pool: Pool;
  readonly #slots: readonly number[];

  private constructor(pool: Pool, slots: readonly number[], layers: readonly PagedBatch[]) {
    this.layers = layers;
    this.#pool = pool;
    this.#slots = slots;
  }

  static async make(
    device: GPUDevice,
    sizes: CacheSizes,
    options: CacheOptions,
    label: string,
  ): Promise<PagedCaches> {
    const { layers, capacity } = sizes;
    const { pageSize = 16, forks = 0 } = options;
    check(
      Number.isSafeInteger(forks) && forks >= 0,
      "argument",
      () => `${label}: forks must be a whole number from 0 up, got ${forks}.`,
    );
    const entries = sizes.entries * (1 + forks);
    const own = {
      ...rowsOf(sizes, options),
      entries,
      pageSize,
      pages: entries * Math.ceil(capacity / pageSize),
      maxTokens: capacity,
      label: `${label} cache`,
    };
    const caches = await forLayers(layers, () => createPagedKvCache(device, own));
    const free = Array.from({ length: entries }, (_, slot) => slot);
    const pool: Pool = { caches, free, users: 0 };
    try {
      return await PagedCaches.#from(pool, sizes.entries, () => undefined);
    } catch (error) {
      for (const one of caches) one.destroy();
      throw error;
    }
  }

  /** Takes entries of a pool. `fill` gives each its tokens. */
  static async #from(
    pool: Pool,
    count: number,
    fill: (cache: PagedKvCache, slots: readonly number[]) => void,
  ): Promise<PagedCaches> {
    const slots = pool.free.splice(0, count);
    pool.users++;
    try {
      for (const one of pool.caches) fill(one, slots);
      const { caches } = pool;
      const batches = await forLayers(caches.length, (layer) => caches[layer].batch(slots));
      return new PagedCaches(pool, slots, batches);
    } catch (error) {
      give(pool, slots);
      throw error;
    }
  }

  get bytes(): number {
    return this.#pool.caches.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  async truncate(lengths: readonly number[]): Promise<void> {
    for (const cache of this.#pool.caches) {
      for (const [entry, slot] of this.#slots.entries())
        cache.truncate(slot, Math.min(lengths[entry], cache.lengths[slot]));
    }
  }

  async reorder(entries: readonly number[]): Promise<void> {
    for (const batch of this.layers) batch.reorder(entries);
  }

  async fork(): Promise<LayerCaches> {
    const { length } = this.#slots;
    if (this.#pool.free.length < length) {
      throw new FoveaError(
        "limit",
        "there is no room for another fork: make the session with more of `cache: { forks }`, or destroy one.",
      );
    }
    return PagedCaches.#from(this.#pool, length, (cache, slots) => {
      for (const [at, slot] of slots.entries()) cache.fork(this.#slots[at], slot);
    });
  }

  destroy(): void {
    for (const one of this.layers) one.destroy();
    give(this.#pool, this.#slots);
  }
}

/** Gives entries back to their pool, which goes with the last of its users. */
function give(pool: Pool, slots: readonly number[]): void {
  for (const cache of pool.caches) for (const slot of slots) cache.free(slot);
  pool.free.push(...slots);
  pool.users--;
  if (pool.users === 0) for (const one of pool.caches) one.destroy();
}
