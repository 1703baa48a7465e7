// Key-value caches in pages: memory that sequences share, and hand back page by page.

import { checkDevice, guarded } from "../gpu/buffers.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { AppendOptions } from "./append_queue.ts";
import type { CacheAppendPlan } from "./cache_append.ts";
import type { AppendProblem } from "./cache_append_problem.ts";
import { anglesOf, resolveNorm, resolveRotation } from "./cache_options.ts";
import type { KvSource, KvSourceOwner } from "./kv_source.ts";
import { PageMemory } from "./page_memory.ts";
import { checkAlive, checkedEntries, PagedBatch, type PagedParts } from "./paged_batch.ts";
import { type PagedKvCacheOptions, resolvePagedCache } from "./paged_options.ts";
import { PageTables } from "./pages.ts";

/**
 * A cache of keys and values in pages. Make one with {@link createPagedKvCache}; attention reads it, or some of its
 * entries (`batch`), as `cache` of its problem.
 *
 * Which pages belong to which entry is decided here on the host: `truncate`, `fork` and `free` are synchronous and touch no
 * GPU. The GPU is told by commands, just before what depends on it: appends and plans of attention record what has
 * changed. So commands mean the entries as they were when they were encoded, whenever they are submitted. Submit all that
 * is encoded, in that order.
 */
export class PagedKvCache implements KvSourceOwner {
  readonly device: GPUDevice;
  readonly label: string;
  readonly #parts: PagedParts;
  readonly #all: PagedBatch;
  readonly #free: () => void;

  private constructor(parts: PagedParts, all: PagedBatch, free: () => void) {
    this.device = parts.device;
    this.label = parts.resolved.label;
    this.#parts = parts;
    this.#all = all;
    this.#free = free;
  }

  /** @internal Use {@link createPagedKvCache}. */
  static make(parts: PagedParts, all: PagedBatch, free: () => void): PagedKvCache {
    return new PagedKvCache(parts, all, free);
  }

  /** Where keys and values of all entries lie, for attention. */
  get source(): KvSource {
    return this.#all.source;
  }

  /** Tokens of each entry, as far as is encoded. */
  get lengths(): readonly number[] {
    return this.#all.lengths;
  }

  /** Pages that no entry has. */
  get freePages(): number {
    return this.#parts.tables.freePages;
  }

  /** Bytes of GPU memory that the cache owns, without its plans (some KiB each) and its batches (64 KiB and their page tables). */
  get bytes(): number {
    const { memory, rotary } = this.#parts;
    return memory.bytes + this.#all.state.bytes + (rotary?.angles.buffer.size ?? 0);
  }

  get destroyed(): boolean {
    return this.#all.destroyed;
  }

  /** The pages of an entry, in the order of its tokens. Entries that were forked have some in common. */
  pagesOf(entry: number): readonly number[] {
    this.#checkEntry("pagesOf", entry);
    return [...this.#parts.tables.pages(entry)];
  }

  /** Compiles an append to all entries; see {@link PagedBatch.planAppend}. Entries may get 0 tokens. */
  planAppend(problem: AppendProblem): Promise<CacheAppendPlan> {
    return this.#all.planAppend(problem);
  }

  /** Appends tokens to all entries, submits the work and resolves once the GPU has accepted it; see {@link PagedBatch.append}. */
  append(k: Tensor, v: Tensor, options: AppendOptions = {}): Promise<void> {
    return this.#all.append(k, v, options);
  }

  /**
   * Entries of the cache, in this order, for attention and appends to these alone: a batch of the sequences that run.
   * Asynchronous, for it has a page table on the GPU; `select` makes it another batch of the same size at no cost.
   *
   * @example
   * const running = await paged.batch([3, 0, 7]);
   * const attend = await planAttention(device, { q, cache: running, causal: true });
   * attend.encode(encoder, { output });
   * running.select([3, 5, 7]); // entry 0 has ended, 5 takes its place
   * attend.encode(encoder, { output });
   */
  async batch(entries: readonly number[]): Promise<PagedBatch> {
    checkAlive(`${this.label}.batch`, this.#all);
    const batch = await PagedBatch.make(this.#parts, entries, "batch");
    if (this.destroyed) batch.destroy();
    return batch;
  }

  /** Takes back all tokens of an entry from number `length` on, and the pages that nobody else has. */
  truncate(entry: number, length: number): void {
    this.#checkEntry("truncate", entry);
    this.#parts.tables.truncate(entry, length);
  }

  /** Takes back all tokens of an entry: it is empty, and its pages are free unless a fork has them. */
  free(entry: number): void {
    this.#checkEntry("free", entry);
    this.#parts.tables.truncate(entry, 0);
  }

  /**
   * Gives the empty entry `to` the first `tokens` tokens of another one, by default all. Nothing is copied: both have the
   * same pages. Only a page that is partly filled is copied, when the first of them appends to it.
   *
   * @example
   * paged.fork(0, 1); // a second answer to the same prompt
   * paged.fork(0, 2, 48); // another sequence that starts with the same 48 tokens
   */
  fork(from: number, to: number, tokens?: number): void {
    this.#checkEntry("fork", from);
    this.#checkEntry("fork", to);
    const { tables } = this.#parts;
    tables.fork(from, to, tokens ?? tables.length(from));
  }

  /**
   * For when something that was encoded is not going to be submitted: the next commands tell the GPU all lengths and page
   * tables again, and not only what has changed. Tokens of appends that never ran are to be taken back by `truncate`.
   */
  resync(): void {
    checkAlive(`${this.label}.resync`, this.#all);
    for (const batch of this.#parts.batches) batch.forget();
  }

  /** Frees the memory of the cache and its batches. Work that was submitted before still runs. */
  destroy(): void {
    this.#free();
  }

  #checkEntry(what: string, entry: number): void {
    checkAlive(`${this.label}.${what}`, this.#all);
    checkedEntries(`${this.label}.${what}`, [entry], this.#parts.resolved.entries);
  }
}

/**
 * Makes a cache whose memory is pages of `pageSize` tokens, for sequences that come and go, differ in length, and share
 * beginnings. Memory is allocated once; a sequence takes a page when it needs one and hands it back when it ends.
 *
 * ```
 * k, v      [pages, Hkv, pageSize, D] and [pages, Hkv, pageSize, Dv]; int8, int4: rows of words, as in a KvCache
 * token j   of an entry: page table[entry][floor(j / pageSize)], row j mod pageSize
 * ```
 *
 * Source: PagedAttention (arXiv 2309.06180). Pages have a number of owners; a page that several own is never written.
 *
 * Rejects with FoveaError for options that make no sense, and for memory that the device cannot bind or has not.
 *
 * @example
 * const cache = await createPagedKvCache(device, { entries: 16, kvHeads: 8, headDim: 64, pages: 512, pageSize: 16 });
 * const append = await cache.planAppend({ k: { shape: [16, 8, 1, 64] }, v: { shape: [16, 8, 1, 64] } });
 */
export async function createPagedKvCache(device: GPUDevice, options: PagedKvCacheOptions): Promise<PagedKvCache> {
  checkDevice(device);
  const resolved = resolvePagedCache(options);
  const { label, entries, headDim, maxTokens } = resolved;
  const made: { destroy(): void }[] = [];
  let destroyed = false;
  const batches = new Set<PagedBatch>();
  const free = () => {
    destroyed = true;
    for (const one of [...batches, ...made]) one.destroy();
  };
  try {
    const rotation = resolveRotation(label, options.rotary, { headDim, capacity: maxTokens });
    const norm = await resolveNorm(label, options.qkNorm, headDim);
    const makeMemory = await PageMemory.prepare(device, resolved);
    const { value: memory, done } = guarded(device, label, makeMemory);
    made.push(memory);
    const rotary = rotation && anglesOf(device, label, rotation);
    if (rotary) made.push(rotary.angles);
    const tables = new PageTables(resolved);
    const parts: PagedParts = { device, resolved, memory, tables, norm, rotary, batches, isDestroyed: () => destroyed };
    const every = Array.from({ length: entries }, (_, entry) => entry);
    const all = await PagedBatch.make(parts, every, "batch");
    await Promise.all([done, memory.k.allocated, memory.v.allocated, rotary?.angles.allocated]);
    return PagedKvCache.make(parts, all, free);
  } catch (error) {
    free();
    throw error;
  }
}
