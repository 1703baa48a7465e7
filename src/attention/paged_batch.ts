// Some entries of a paged cache, as attention and appends see them.

import { check } from "../errors.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { kvAccess } from "../kernels/kv_access.ts";
import { type AppendOptions, AppendQueue } from "./append_queue.ts";
import { type CacheAppendPlan, makeAppendPlan } from "./cache_append.ts";
import type { AppendProblem, CacheRotary, ResolvedNorm } from "./cache_append_problem.ts";
import { CacheState } from "./cache_state.ts";
import type { KvSource } from "./kv_source.ts";
import type { PageMemory } from "./page_memory.ts";
import { PageView } from "./page_view.ts";
import type { ResolvedPagedCache } from "./paged_options.ts";
import type { PageCopy, PageTables } from "./pages.ts";

/** What a paged cache and its batches share. */
export interface PagedParts {
  readonly device: GPUDevice;
  readonly resolved: ResolvedPagedCache;
  readonly memory: PageMemory;
  readonly tables: PageTables;
  readonly norm: ResolvedNorm | undefined;
  readonly rotary: CacheRotary | undefined;
  /** Those that the cache has to free. */
  readonly batches: Set<PagedBatch>;
  /** Whether the cache was destroyed. */
  isDestroyed(): boolean;
}

/**
 * Entries of a {@link PagedKvCache} in an order: entry b of the batch axis of q, k and v is entry `entries[b]` of the
 * cache. Make one with `cache.batch()`; attention takes it as `cache` of its problem. It owns lengths and a page table on
 * the GPU and no keys or values, and follows whatever happens to its entries.
 */
export class PagedBatch {
  readonly device: GPUDevice;
  readonly label: string;
  /** Where keys and values lie, for attention. */
  readonly source: KvSource;
  /** @internal */
  readonly state: CacheState;
  /** @internal */
  readonly norm: ResolvedNorm | undefined;
  /** @internal */
  readonly rotary: CacheRotary | undefined;
  readonly #parts: PagedParts;
  readonly #view: PageView;
  readonly #queue = new AppendQueue(this);
  #entries: readonly number[];
  /** Of the append that is being encoded. */
  #copies: readonly PageCopy[] = [];
  #destroyed = false;

  private constructor(parts: PagedParts, label: string, state: CacheState, entries: readonly number[]) {
    const { device, resolved, memory, norm, rotary } = parts;
    const { kvHeads, headDim, vDim, maxTokens, pageSize, pagesPerEntry, rows } = resolved;
    this.device = device;
    this.label = label;
    this.state = state;
    this.norm = norm;
    this.rotary = rotary;
    this.#parts = parts;
    this.#view = new PageView(state);
    this.#entries = entries;
    const { quantised } = rows;
    const layout = { place: "paged" as const, pageSize, ...(quantised && { quantised }) };
    this.source = {
      ...{ ...layout, batch: entries.length, kvHeads, headDim, vDim, capacity: maxTokens, pagesPerEntry },
      ...{ k: memory.k, v: memory.v, state: state.tensor, sinkTokens: 0, ring: 0 },
      access: kvAccess(layout),
      update: (pass) => this.#view.update(pass, parts.tables, this.#entries),
    };
  }

  /** @internal Use `cache.batch()`. */
  static async make(parts: PagedParts, entries: readonly number[], what: string): Promise<PagedBatch> {
    const { device, resolved } = parts;
    const { label } = resolved;
    const checked = checkedEntries(`${label}.${what}`, entries, resolved.entries);
    const state = await CacheState.make(device, label, checked.length, resolved.pagesPerEntry);
    const batch = new PagedBatch(parts, label, state, checked);
    parts.batches.add(batch);
    try {
      await state.tensor.allocated;
    } catch (error) {
      batch.destroy();
      throw error;
    }
    return batch;
  }

  /** Entries of the cache, in the order of the batch. */
  get entries(): readonly number[] {
    return this.#entries;
  }

  /** Tokens of each of them, as far as is encoded. */
  get lengths(): readonly number[] {
    return this.#entries.map((entry) => this.#parts.tables.length(entry));
  }

  get destroyed(): boolean {
    return this.#destroyed || this.#parts.isDestroyed();
  }

  /**
   * Takes other entries, as many as before: plans stay as they are, nothing is allocated, and commands that were encoded
   * before still mean the entries of then. An entry may be there twice as long as it gets no tokens.
   *
   * Throws FoveaError for entries that the cache does not have, and has changed nothing then.
   */
  select(entries: readonly number[]): void {
    const what = `${this.label}.select`;
    check(!this.destroyed, "destroyed", () => `${what}: the batch was destroyed.`);
    const checked = checkedEntries(what, entries, this.#parts.resolved.entries);
    const { length } = this.#entries;
    check(
      checked.length === length,
      "argument",
      () => `${what}: the batch is of ${length} entries, got ${checked.length}. Make another one with batch().`,
    );
    this.#entries = checked;
  }

  /**
   * Compiles an append to these entries: `plan.encode(pass, { k, v })` then gives entry b of the batch axis its new tokens,
   * and takes pages for them.
   *
   * ```
   * k, v of entry b, row i < counts[b]  ->  token lengths[b] + i;   lengths[b] += counts[b]
   * ```
   *
   * As {@link KvCache.planAppend}, but for counts, which must be numbers: pages are handed out on the host. `encode` throws
   * FoveaError("limit"), and then has changed nothing, if an entry would be longer than `maxTokens` or the pages do not
   * suffice for all entries together.
   *
   * @example
   * const append = await batch.planAppend({ k: { shape: [3, 8, 1, 64] }, v: { shape: [3, 8, 1, 64] } });
   * append.encode(encoder, { k, v });
   */
  async planAppend(problem: AppendProblem): Promise<CacheAppendPlan> {
    check(
      problem?.counts === undefined,
      "argument",
      () =>
        `${problem?.label ?? `${this.label} append`}: pages are handed out on the host, which has to know the counts; give them as numbers when the plan is encoded, and leave counts out here.`,
    );
    return makeAppendPlan(this, problem);
  }

  /**
   * Appends tokens to these entries, submits the work and resolves once the GPU has accepted it. Calls run in their order,
   * awaited or not. See `planAppend`.
   *
   * @param k [B, Hkv, M, D]
   * @param v [B, Hkv, M, Dv]
   *
   * @example
   * await batch.append(k, v, { counts: [12, 3, 7] });
   * const { output } = await attention(q, batch, { causal: true });
   */
  append(k: Tensor, v: Tensor, options: AppendOptions = {}): Promise<void> {
    return this.#queue.append(k, v, options);
  }

  /** @internal See `resync` of the cache. */
  forget(): void {
    this.#view.forget();
  }

  /** @internal Takes pages for tokens of each entry, or throws and has changed nothing. */
  reserve(label: string, counts: readonly number[]): void {
    const grown = this.#entries.filter((_, index) => counts[index] > 0);
    for (const [index, entry] of grown.entries()) {
      check(
        grown.indexOf(entry) === index,
        "argument",
        () =>
          `${label}: entry ${entry} of the cache is twice in the batch [${this.#entries}] and would get tokens twice.`,
      );
    }
    this.#copies = this.#parts.tables.append(this.#entries, counts, label);
  }

  /** @internal Records what has to be done before the tokens are written: page tables, and pages of their own. */
  prepare(pass: GPUComputePassEncoder, counts: readonly number[]): void {
    this.#view.update(pass, this.#parts.tables, this.#entries, counts);
    this.#parts.memory.copy(pass, this.#copies);
  }

  /** Frees the lengths and the page table of the batch. The entries stay in the cache. */
  destroy(): void {
    this.#destroyed = true;
    this.#parts.batches.delete(this);
    this.#queue.destroy();
    this.state.destroy();
  }
}

/** Throws FoveaError("destroyed") if the batch, or its cache, was destroyed. */
export function checkAlive(what: string, { destroyed }: PagedBatch): void {
  check(!destroyed, "destroyed", () => `${what}: the cache was destroyed.`);
}

/** Entries of a cache that has `count` of them. Throws FoveaError("argument") for others. */
export function checkedEntries(what: string, entries: readonly number[], count: number): readonly number[] {
  check(
    Array.isArray(entries) &&
      entries.length > 0 &&
      entries.every((entry) => Number.isInteger(entry) && entry >= 0 && entry < count),
    "argument",
    () => `${what}: entries of this cache are whole numbers from 0 to ${count - 1}, got [${entries}].`,
  );
  return [...entries];
}
