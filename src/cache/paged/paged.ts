// Key-value caches in pages: memory that sequences share, and hand back page by page.

import type { KvSource, KvSourceOwner } from "../../attention/kv_source.ts";
import { check } from "../../errors.ts";
import type { Numbers } from "../../given.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import type { CacheAppendPlan } from "../append.ts";
import type { AppendProblem } from "../append_problem.ts";
import type { AppendOptions } from "../append_queue.ts";
import { checkAlive, PagedBatch } from "./batch.ts";
import { checkedEntries } from "./entries.ts";
import type { PagedParts } from "./parts.ts";

/**
 * A cache of keys and values in pages. Make one with {@link createPagedKvCache}; attention reads
 * it, or some of its entries (`batch`), as `cache` of its problem.
 *
 * Which pages belong to which entry is decided here on the host: `truncate`, `fork` and `free` are
 * synchronous and touch no GPU. The GPU is told by commands, just before what depends on it:
 * appends and plans of attention record what has changed. So commands mean the entries as they were
 * when they were encoded, whenever they are submitted. Submit all that is encoded, in that order.
 *
 * Calls of a cache and of all its batches:
 *
 * - A call means the moment when it was made: the entries of its batch, the tensors, what they
 *   hold, and numbers in arrays. What is done to them while the call waits changes nothing, with
 *   two exceptions: tensors that a call writes to (`q` in place, `qOutput`) are the caller's to
 *   leave alone until it resolves, and so are buffers of the caller's without
 *   GPUBufferUsage.COPY_SRC.
 * - Asynchronous calls (`append`, and `attention`, `attentionWeights` and `topKKeys` of the cache
 *   or a batch) run in the order in which they were made, awaited or not. `truncate`, `free`,
 *   `fork` and `reorder` are synchronous, but take their place in that order:
 *   `append(k, v); free(0)` frees the new tokens too. They are checked against the state after all
 *   calls before them, of which `lengths`, `pagesOf` and `freePages` tell as well.
 * - A call that throws or is rejected has changed nothing that a later one could see: tokens,
 *   pages, lengths, and what the GPU was told are as before. Of an append that is rejected while a
 *   `truncate` or `fork` waits behind it, these take what is there without its tokens.
 * - What is encoded (`encode` of plans) would run before calls that still wait, and throws
 *   FoveaError until these are awaited.
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

  /** Tokens of each entry: as far as is encoded, and once all calls that were made have run. */
  get lengths(): readonly number[] {
    return this.#all.lengths;
  }

  /** Pages that no entry has. */
  get freePages(): number {
    return this.#parts.ledger.projected.freePages;
  }

  /**
   * Bytes of GPU memory that the cache owns, without its plans (some KiB each) and its batches (64
   * KiB and their page tables).
   */
  get bytes(): number {
    const { memory, rotary } = this.#parts;
    return memory.bytes + this.#all.state.bytes + (rotary?.angles.buffer.size ?? 0);
  }

  get destroyed(): boolean {
    return this.#all.destroyed;
  }

  /**
   * The pages of an entry, in the order of its tokens. Entries that were forked have some in
   * common.
   */
  pagesOf(entry: number): readonly number[] {
    this.#checkEntry("pagesOf", entry);
    return [...this.#parts.ledger.projected.pages(entry)];
  }

  /**
   * Compiles an append to all entries; see {@link PagedBatch.planAppend}. Entries may get 0 tokens.
   */
  planAppend(problem: AppendProblem): Promise<CacheAppendPlan> {
    return this.#all.planAppend(problem);
  }

  /**
   * Appends tokens to all entries, submits the work and resolves once the GPU has accepted it; see
   * {@link PagedBatch.append}.
   */
  append(k: Tensor, v: Tensor, options: AppendOptions = {}): Promise<void> {
    return this.#all.append(k, v, options);
  }

  /**
   * Entries of the cache, in this order, for attention and appends to these alone: a batch of the
   * sequences that run. Asynchronous, for it has a page table on the GPU; `select` makes it another
   * batch of the same size at no cost.
   *
   * @example
   * const running = await paged.batch([3, 0, 7]);
   * const attend = await planAttention(device, { q, cache: running, causal: true });
   * attend.encode(encoder, { output });
   * running.select([3, 5, 7]); // entry 0 has ended, 5 takes its place
   * attend.encode(encoder, { output });
   */
  async batch(entries: Numbers): Promise<PagedBatch> {
    checkAlive(`${this.label}.batch`, this.#all);
    return PagedBatch.make(this.#parts, entries, "batch");
  }

  /**
   * Takes back all tokens of an entry from number `length` on, and the pages that nobody else has.
   */
  truncate(entry: number, length: number): void {
    this.#checkEntry("truncate", entry);
    this.#parts.ledger.change(
      (tables) => tables.truncate(entry, length),
      (tables) => tables.truncate(entry, Math.min(length, tables.length(entry))),
    );
  }

  /**
   * Takes back all tokens of an entry: it is empty, and its pages are free unless a fork has them.
   */
  free(entry: number): void {
    this.#checkEntry("free", entry);
    this.#parts.ledger.change((tables) => tables.truncate(entry, 0));
  }

  /**
   * Gives the empty entry `to` the first `tokens` tokens of another one, by default all. Nothing is
   * copied: both have the same pages. Only a page that is partly filled is copied, when the first
   * of them appends to it.
   *
   * @example
   * paged.fork(0, 1); // a second answer to the same prompt
   * paged.fork(0, 2, 48); // another sequence that starts with the same 48 tokens
   */
  fork(from: number, to: number, tokens?: number): void {
    this.#checkEntry("fork", from);
    this.#checkEntry("fork", to);
    this.#parts.ledger.change(
      (tables) => tables.fork(from, to, tokens ?? tables.length(from)),
      (tables) =>
        tables.fork(from, to, Math.min(tokens ?? tables.length(from), tables.length(from))),
      "refusals", // of appends to what is empty because of them
    );
  }

  /**
   * Gives every entry the tokens of another one, or of itself, all at once: entry i those that
   * `entries[i]` had. Any mapping, so beams of a search go on as `reorder([0, 0, 2, 1])`; of some
   * entries, see {@link PagedBatch.reorder}. Nothing is copied: pages get other owners, and one
   * that is partly filled is copied when the first of several appends to it.
   *
   * Throws FoveaError, and then has changed nothing.
   *
   * @param entries One for each entry, from 0 up.
   */
  reorder(entries: Numbers): void {
    const what = `${this.label}.reorder`;
    checkAlive(what, this.#all);
    const count = this.#parts.resolved.entries;
    const sources = checkedEntries(what, entries, count);
    check(
      sources.length === count,
      "argument",
      () => `${what}: expected ${count} entries, one for each, got ${sources.length}.`,
    );
    const every = sources.map((_, entry) => entry);
    this.#parts.ledger.change((tables) => tables.reorder(every, sources));
  }

  /**
   * For when something that was encoded is not going to be submitted: the next commands tell the
   * GPU all lengths and page tables again, and not only what has changed. Tokens of appends that
   * never ran are to be taken back by `truncate`. Of an entry that shared its last page with a
   * fork, partly filled, such an append has put a copy in its place, which was never made: free
   * that entry, and fork it again.
   */
  resync(): void {
    checkAlive(`${this.label}.resync`, this.#all);
    for (const batch of this.#parts.batches) batch.forget();
  }

  /** @internal See {@link KvSourceOwner}. */
  inTurn<T>(work: (cache: KvSourceOwner) => Promise<T>): Promise<T> {
    return this.#all.inTurn(work);
  }

  /**
   * Frees the memory of the cache and its batches. Work that was submitted before still runs; calls
   * that wait are rejected.
   */
  destroy(): void {
    this.#free();
  }

  /** As `destroy`, at the end of a block that has the cache by `using`. */
  [Symbol.dispose](): void {
    this.destroy();
  }

  #checkEntry(what: string, entry: number): void {
    checkAlive(`${this.label}.${what}`, this.#all);
    checkedEntries(`${this.label}.${what}`, [entry], this.#parts.resolved.entries);
  }
}
