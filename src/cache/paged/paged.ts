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
 * synchronous and record no commands. Appends and plans of attention record what has changed just
 * before they use it. So commands use the entries as they were when they were encoded, whenever
 * they are submitted. Submit all encoded commands, in the order of encoding.
 *
 * Calls of a cache and of all its batches:
 *
 * - A call uses its arguments as they are when it is made: the entries of its batch, the tensors,
 *   their content, and numbers in arrays. Changing them while the call waits changes nothing, with
 *   two exceptions: tensors that a call writes to (`q` in place, `qOutput`) are the caller's to
 *   leave alone until it resolves, and so are buffers of the caller's without
 *   GPUBufferUsage.COPY_SRC.
 * - Asynchronous calls (`append`, and `attention`, `attentionWeights` and `topKKeys` of the cache
 *   or a batch) run in the order in which they were made, awaited or not. `truncate`, `free`,
 *   `fork` and `reorder` are synchronous, but take their place in that order:
 *   `append(k, v); free(0)` frees the new tokens too. They are checked against the state after all
 *   calls before them, which `lengths`, `pagesOf` and `freePages` describe as well.
 * - A call that throws or is rejected has changed nothing that a later one could see: tokens,
 *   pages, lengths, and what the GPU was told are as before. If an append is rejected while a
 *   `truncate` or `fork` waits behind it, these take the tokens that there are without it.
 * - Encoded commands (`encode` of plans) would run before calls that still wait, so encoding throws
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

  /** Tokens of each entry after all commands that are encoded and all calls that were made. */
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

  /** The pages of an entry, in the order of its tokens. Forks have pages in common. */
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
   * Makes a batch of some entries, in this order, for attention and appends to these alone, such as
   * the sequences that run. It is asynchronous because a batch has a page table on the GPU;
   * `select` makes it another batch of the same size at no cost.
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
   * Takes back all tokens of an entry from number `length` on, and frees the pages that no other
   * entry has.
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
      "refusals", // of appends to entries that are empty only if those are refused
    );
  }

  /**
   * Gives every entry the tokens of another one, or of itself, all at once: entry i gets those that
   * `entries[i]` had. Any mapping will do, so beams of a search go on as `reorder([0, 0, 2, 1])`;
   * {@link PagedBatch.reorder} does so for some entries. Nothing is copied, only the owners of
   * pages change; a page that is partly filled is copied when the first of several owners appends
   * to it.
   *
   * Throws FoveaError, and then has changed nothing.
   *
   * @param entries For each entry, the one whose tokens it gets, counted from 0.
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
   * Call this if encoded commands are not going to be submitted: the next commands then tell the
   * GPU all lengths and page tables again, and not only what has changed. Take back the tokens of
   * appends that never ran with `truncate`. If such an append was to an entry that shared a partly
   * filled last page with a fork, the entry now has a copy of the page that was never made: free
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

  /** Calls `destroy` at the end of a block that declares the cache with `using`. */
  [Symbol.dispose](): void {
    this.destroy();
  }

  #checkEntry(what: string, entry: number): void {
    checkAlive(`${this.label}.${what}`, this.#all);
    checkedEntries(`${this.label}.${what}`, [entry], this.#parts.resolved.entries);
  }
}
