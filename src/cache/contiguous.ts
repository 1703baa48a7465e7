// A cache of the keys and values of all tokens so far, in memory that is allocated once. Tokens are
// appended in place and taken back; caches are forked and grown.

import type { KvSource, KvSourceOwner } from "../attention/kv_source.ts";
import { check, show } from "../errors.ts";
import { elementsOfList, type Numbers } from "../given.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { takeOptions } from "../options.ts";
import { checkTarget } from "../plan/target.ts";
import { type CacheAppendPlan, makeAppendPlan } from "./append.ts";
import type { AppendProblem } from "./append_problem.ts";
import { type AppendOptions, AppendQueue } from "./append_queue.ts";
import type { CacheCore } from "./core.ts";
import { FORK_OPTIONS, type ForkOptions } from "./options.ts";
import { STATE_LIMIT } from "./state.ts";

/**
 * A cache of keys and values. Make one with {@link createKvCache}; attention reads it as `cache` of
 * its problem.
 *
 * Lengths are on the GPU, where appends and attention read them, and mirrored here in `lengths`, so
 * that nothing is ever read back. The mirror counts tokens when they are encoded: submit commands
 * in the order of encoding, and if commands are never submitted, `truncate` to the lengths before
 * them. If counts come from the GPU, the mirror is an upper bound.
 *
 * Calls:
 *
 * - A call uses its arguments as they are when it is made: the tensors, their content, and numbers
 *   in arrays. Changing them while the call waits changes nothing, with two exceptions: tensors
 *   that a call writes to (`q` in place, `qOutput`) are the caller's to leave alone until it
 *   resolves, and so are buffers of the caller's without GPUBufferUsage.COPY_SRC.
 * - Asynchronous calls (`append`, `truncate`, `reset`, `fork`, `forkEntry`, `reorder`, `grow`, and
 *   `attention`, `attentionWeights` and `topKKeys` of the cache) run in the order in which they
 *   were made, awaited or not. `lengths` counts all of them.
 * - A call that throws or is rejected has changed nothing that a later one could see.
 * - Encoded commands (`encode` of plans, `encodeTruncate`) would run before calls that still wait,
 *   so encoding throws FoveaError until these are awaited.
 */
export class KvCache implements KvSourceOwner {
  readonly device: GPUDevice;
  readonly label: string;
  readonly #core: CacheCore;
  readonly #queue: AppendQueue;

  private constructor(core: CacheCore) {
    this.device = core.device;
    this.label = core.label;
    this.#core = core;
    this.#queue = new AppendQueue(core);
  }

  /** @internal Use {@link createKvCache}. */
  static make(core: CacheCore): KvCache {
    return new KvCache(core);
  }

  /** Where keys and values lie, for attention. After the cache has grown it is another object. */
  get source(): KvSource {
    return this.#core.source;
  }

  /** Tokens of each entry after all commands that are encoded and all calls that were made. */
  get lengths(): readonly number[] {
    return [...this.#core.ledger.projected.lengths];
  }

  /** The most tokens of an entry. */
  get capacity(): number {
    return this.#core.resolved.capacity;
  }

  /** Bytes of GPU memory that the cache owns, without its plans (some KiB each). */
  get bytes(): number {
    return this.#core.bytes;
  }

  get destroyed(): boolean {
    return this.#core.destroyed;
  }

  /**
   * Compiles an append. `plan.encode(pass, { k, v })` then takes the tokens into the cache:
   *
   * ```
   * k, v of entry b, row i < counts[b]  ->  token lengths[b] + i;   lengths[b] += counts[b]
   * ```
   *
   * Rows of k are normalised (`qkNorm`) and rotated (`rotary`) first, if the cache does that, and
   * so are those of q. If there are more tokens than rows of a ring, the last ones stay. Memory of
   * the cache past an entry's last token stays as it was. Rows of k, v and q from `counts[b]` on
   * are not read, and those rows of q and `qOutput` are not written.
   *
   * Rejects with FoveaError, as {@link planAttention} does.
   *
   * @example
   * const append = await cache.planAppend({
   *   k: { shape: [1, 8, 1, 64] },
   *   v: { shape: [1, 8, 1, 64] },
   * });
   * append.encode(pass, { k, v });
   */
  async planAppend(problem: AppendProblem): Promise<CacheAppendPlan> {
    return makeAppendPlan(this.#core, problem);
  }

  /**
   * Appends tokens, submits the work and resolves once the GPU has accepted it. If there is no room
   * and the cache was made with a `maxCapacity`, it grows first. Calls run in their order, awaited
   * or not; k and v may be overwritten or destroyed once this has returned. See
   * {@link KvCache.planAppend}.
   *
   * @param k [B, Hkv, M, D]
   * @param v [B, Hkv, M, Dv]
   *
   * @example
   * await cache.append(k, v, { q });
   * const { output } = await attention(q, cache, { causal: true });
   */
  append(k: Tensor, v: Tensor, options: AppendOptions = {}): Promise<void> {
    return this.#queue.append(k, v, options);
  }

  /**
   * Takes tokens back: entries longer than their limit get that length; the tokens that they lose
   * may be overwritten. Commands that were encoded before still see these tokens. It is
   * {@link KvCache.encodeTruncate} in a submission of its own.
   *
   * @param lengths Limits from 0 up, for all entries or one each.
   */
  async truncate(lengths: number | Numbers): Promise<void> {
    this.#core.checkAlive();
    return this.#core.truncate(this.#perEntry("truncate", lengths));
  }

  /**
   * Records that tokens are taken back, as when a speculation fails: entries longer than their
   * limit get that length. Synchronous; allocates nothing and submits nothing. Throws FoveaError,
   * and then has changed nothing.
   *
   * A ring has overwritten old tokens. It throws `"limit"` if the next query would miss one of
   * them: at most ring - window tokens can be taken back.
   *
   * @param lengths Limits from 0 up, for all entries or one each.
   */
  encodeTruncate(
    target: GPUComputePassEncoder | GPUCommandEncoder,
    lengths: number | Numbers,
  ): void {
    this.#core.checkAlive();
    checkTarget(`${this.label}.encodeTruncate`, target);
    this.#core.encodeTruncate(target, this.#perEntry("truncate", lengths));
  }

  /**
   * Forgets all tokens, in a submission of its own. `encodeTruncate(pass, 0)` does the same in the
   * caller's commands.
   */
  reset(): Promise<void> {
    return this.truncate(0);
  }

  /**
   * Makes another cache with the same tokens and options. The prefix is copied on the GPU, once: a
   * contiguous cache cannot share rows (`createPagedKvCache` shares pages). Commands that are
   * encoded and not yet submitted have no effect on the copy.
   */
  async fork(options: ForkOptions = {}): Promise<KvCache> {
    this.#core.checkAlive();
    const { lengths, label = this.label } = takeOptions(
      `${this.label}.fork`,
      options,
      FORK_OPTIONS,
    );
    const limits = lengths === undefined ? undefined : this.#perEntry("fork", lengths);
    return KvCache.make(await this.#core.fork(label, limits));
  }

  /**
   * Gives entry `to` the tokens of entry `from`, in place of its own: a prefix for another
   * sequence, or a beam that goes on. The rows are copied on the GPU, once, through memory that is
   * freed again. Commands that are encoded and not yet submitted have no effect on the copy.
   *
   * @param tokens How many of its tokens. Default all.
   */
  async forkEntry(from: number, to: number, tokens?: number): Promise<void> {
    this.#core.checkAlive();
    const what = `${this.label}.forkEntry`;
    this.#checkEntry(`${what}: from`, from);
    this.#checkEntry(`${what}: to`, to);
    check(
      tokens === undefined || (Number.isInteger(tokens) && tokens >= 0),
      "argument",
      () => `${what}: tokens must be a whole number from 0 up, got ${show(tokens)}.`,
    );
    const every = Array.from({ length: this.#core.resolved.batch }, (_, entry) => entry);
    const sources = every.map((entry) => (entry === to ? from : entry));
    const limits = every.map((entry) =>
      entry === to && tokens !== undefined ? tokens : STATE_LIMIT,
    );
    return this.#core.rearrange(sources, limits);
  }

  /**
   * Gives every entry the tokens of another one, or of itself, all at once: entry i gets those that
   * `entries[i]` had. Any mapping will do, so beams of a search go on as `reorder([0, 0, 2, 1])`.
   * Rows are copied on the GPU through at most 16 MiB, which are freed again; entries that stay
   * cost nothing, and memory past their tokens stays as it was. It has a submission of its own;
   * commands that are encoded and not yet submitted have no effect on the copies.
   * (`createPagedKvCache` reorders without a copy.)
   *
   * @param entries For each entry, the one whose tokens it gets, counted from 0.
   *
   * @example
   * // beams 0 and 1 go on from what was beam 2, beam 2 from what was beam 0
   * await cache.reorder([2, 2, 0]);
   */
  async reorder(entries: Numbers): Promise<void> {
    this.#core.checkAlive();
    const { batch } = this.#core.resolved;
    const what = `${this.label}.reorder`;
    const list = elementsOfList<number>(entries);
    check(
      list?.length === batch,
      "argument",
      () => `${what}: entries must be ${batch} batch entries, one for each, got ${show(entries)}.`,
    );
    for (const entry of list) this.#checkEntry(`${what}: each of entries`, entry);
    return this.#core.rearrange(list, undefined);
  }

  /**
   * Makes room for longer sequences: memory is allocated anew, the rows are copied on the GPU, and
   * the old memory is freed. Plans of appends follow; a plan of attention was made for the old
   * memory, and refuses. Submit encoded commands before: they use the old memory. A ring needs no
   * growth: its capacity costs nothing.
   *
   * @param capacity The most tokens of a sequence; no fewer than now.
   */
  async grow(capacity: number): Promise<void> {
    this.#core.checkAlive();
    return this.#core.grow(capacity);
  }

  /** @internal See {@link KvSourceOwner}. */
  inTurn<T>(work: (cache: KvSourceOwner) => Promise<T>): Promise<T> {
    return this.#core.inTurn(work);
  }

  /**
   * Frees the cache's memory. Work that was submitted before still runs; calls that wait are
   * rejected.
   */
  destroy(): void {
    this.#queue.destroy();
    this.#core.destroy();
  }

  /** Calls `destroy` at the end of a block that declares the cache with `using`. */
  [Symbol.dispose](): void {
    this.destroy();
  }

  #checkEntry(what: string, entry: number): void {
    const last = this.#core.resolved.batch - 1;
    check(
      Number.isInteger(entry) && entry >= 0 && entry <= last,
      "argument",
      () => `${what} must be a batch entry, 0 to ${last}, got ${show(entry)}.`,
    );
  }

  #perEntry(what: string, given: number | Numbers): number[] {
    const { batch } = this.#core.resolved;
    const list =
      typeof given === "number"
        ? new Array<number>(batch).fill(given)
        : elementsOfList<number>(given);
    check(
      list?.length === batch && list.every((n) => Number.isInteger(n) && n >= 0),
      "argument",
      () =>
        `${this.label}.${what}: lengths must be a whole number from 0 up, or ${batch} of them (one a batch entry), got ${show(given)}.`,
    );
    return list;
  }
}
