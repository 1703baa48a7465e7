// Makes caches in pages.

import { checkDevice } from "../../gpu/buffers.ts";
import { Ledger } from "../ledger.ts";
import { checkRowMemory } from "../memory.ts";
import { anglesOf, resolveNorm, resolveRotation } from "../resolved.ts";
import { PagedBatch } from "./batch.ts";
import { PageMemory } from "./memory.ts";
import { type PagedKvCacheOptions, resolvePagedCache, takePagedOptions } from "./options.ts";
import { PagedKvCache } from "./paged.ts";
import { PageTables } from "./pages.ts";
import type { PagedParts } from "./parts.ts";

/**
 * Makes a cache whose memory is pages of `pageSize` tokens, for sequences that come and go, differ
 * in length, and share beginnings. Memory is allocated once; a sequence takes a page when it needs
 * one and hands it back when it ends.
 *
 * ```
 * k, v      [pages, Hkv, pageSize, D] and [pages, Hkv, pageSize, Dv]; int8, int4: rows of words,
 *           as in a KvCache
 * token j   of an entry: page table[entry][floor(j / pageSize)], row j mod pageSize
 * ```
 *
 * Source: PagedAttention (arXiv 2309.06180). A page may have several owners, and is never written
 * while it has.
 *
 * Rejects with FoveaError for options that make no sense, for memory that the device cannot bind,
 * and for memory that it doesn't have.
 *
 * @example
 * const cache = await createPagedKvCache(device, {
 *   entries: 16,
 *   kvHeads: 8,
 *   headDim: 64,
 *   pages: 512,
 *   pageSize: 16,
 * });
 * const append = await cache.planAppend({
 *   k: { shape: [16, 8, 1, 64] },
 *   v: { shape: [16, 8, 1, 64] },
 * });
 */
export async function createPagedKvCache(
  device: GPUDevice,
  given: PagedKvCacheOptions,
): Promise<PagedKvCache> {
  checkDevice(device);
  const options = takePagedOptions(given);
  const resolved = resolvePagedCache(options);
  const { label, entries, headDim, maxTokens, pages, kvHeads, pageSize, rows } = resolved;
  const rotation = resolveRotation(label, options.rotary, { headDim, capacity: maxTokens });
  checkRowMemory(device, label, pages * kvHeads * pageSize, rows);
  const made: { destroy(): void }[] = [];
  let destroyed = false;
  const batches = new Set<PagedBatch>();
  const free = () => {
    destroyed = true;
    for (const one of [...batches, ...made]) one.destroy();
  };
  try {
    const norm = await resolveNorm(label, options.qkNorm, headDim);
    const memory = await PageMemory.make(device, resolved);
    made.push(memory);
    const rotary = rotation && anglesOf(device, label, rotation);
    if (rotary) made.push(rotary.angles);
    const tables = new PageTables(resolved);
    const ledger = new Ledger(label, tables);
    const isDestroyed = () => destroyed;
    const parts: PagedParts = {
      device,
      resolved,
      memory,
      tables,
      ledger,
      norm,
      rotary,
      batches,
      isDestroyed,
    };
    const every = Array.from({ length: entries }, (_, entry) => entry);
    const all = await PagedBatch.make(parts, every, "batch");
    await rotary?.angles.allocated;
    return PagedKvCache.make(parts, all, free);
  } catch (error) {
    free();
    throw error;
  }
}
