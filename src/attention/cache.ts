// Keys and values of the tokens so far, in memory that is allocated once: appended in place, taken back, forked, grown.

import { check } from "../errors.ts";
import { checkDevice, guarded } from "../gpu/buffers.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { ANGLE_POSITIONS } from "../kernels/rotary_angles.ts";
import { type AppendOptions, AppendQueue } from "./append_queue.ts";
import { type CacheAppendPlan, makeAppendPlan } from "./cache_append.ts";
import type { AppendProblem, CacheRotary, ResolvedNorm } from "./cache_append_problem.ts";
import { type CopyPlan, copyEntryRows, copyRotary, copyRows, sourceOf } from "./cache_memory.ts";
import {
  anglesOf,
  type KvCacheOptions,
  type ResolvedCache,
  resolveCache,
  resolveNorm,
  resolveRotation,
} from "./cache_options.ts";
import { CacheState, inPass, STATE_LIMIT } from "./cache_state.ts";
import type { KvSource } from "./kv_source.ts";

/** Options of {@link KvCache.fork}. */
export interface ForkOptions {
  /** Tokens to keep, for all entries or one each; entries with fewer keep theirs. Default all. */
  readonly lengths?: number | readonly number[];
  /** Default that of the cache. */
  readonly label?: string;
}

/** Tokens that capacities which a cache chooses itself are a multiple of. */
const BLOCK = 64;

interface CacheParts {
  readonly device: GPUDevice;
  readonly resolved: ResolvedCache;
  readonly state: CacheState;
  readonly norm: ResolvedNorm | undefined;
  readonly rotary: CacheRotary | undefined;
}

/**
 * A cache of keys and values. Make one with {@link createKvCache}; attention reads it as `cache` of its problem.
 *
 * Lengths are on the GPU, where appends and attention read them, and mirrored here in `lengths`, so that nothing is ever
 * read back. The mirror counts what is encoded: submit commands in the order of encoding, and after one that is never
 * submitted `truncate` to what the entries had before. Where counts come from the GPU the mirror is a bound from above.
 */
export class KvCache {
  readonly device: GPUDevice;
  readonly label: string;
  /** @internal */
  readonly state: CacheState;
  /** @internal */
  readonly norm: ResolvedNorm | undefined;
  /** @internal */
  readonly rotary: CacheRotary | undefined;
  #resolved: ResolvedCache;
  #source: KvSource;
  #lengths: number[];
  /** The most tokens that each entry had since it was empty: what a ring has lost depends on it. */
  #peaks: number[];
  readonly #queue = new AppendQueue(this);
  #destroyed = false;

  private constructor({ device, resolved, state, norm, rotary }: CacheParts) {
    this.device = device;
    this.label = resolved.label;
    this.state = state;
    this.norm = norm;
    this.rotary = rotary;
    this.#resolved = resolved;
    this.#source = sourceOf(device, resolved, state.tensor);
    this.#lengths = new Array<number>(resolved.batch).fill(0);
    this.#peaks = [...this.#lengths];
  }

  /** @internal Use {@link createKvCache}. */
  static async make(parts: CacheParts): Promise<KvCache> {
    try {
      const { value: cache, done } = guarded(parts.device, parts.resolved.label, () => new KvCache(parts));
      try {
        await Promise.all([done, ...cache.#tensors.map((used) => used.allocated)]);
        return cache;
      } catch (error) {
        cache.destroy();
        throw error;
      }
    } catch (error) {
      parts.state.destroy();
      parts.rotary?.angles.destroy();
      throw error;
    }
  }

  /** Where keys and values lie, for attention. Another object after the cache has grown. */
  get source(): KvSource {
    return this.#source;
  }

  /** Tokens of each entry, as far as is encoded. */
  get lengths(): readonly number[] {
    return [...this.#lengths];
  }

  /** The most tokens of an entry. */
  get capacity(): number {
    return this.#resolved.capacity;
  }

  /** Bytes of GPU memory that the cache owns, without its plans (some KiB each). */
  get bytes(): number {
    return (
      this.state.bytes +
      [this.#source.k, this.#source.v].reduce((total, { buffer }) => total + buffer.size, 0) +
      (this.rotary?.angles.buffer.size ?? 0)
    );
  }

  get destroyed(): boolean {
    return this.#destroyed;
  }

  get #tensors(): readonly Tensor[] {
    return [this.#source.k, this.#source.v, this.state.tensor, ...(this.rotary ? [this.rotary.angles] : [])];
  }

  /**
   * Compiles an append. `plan.encode(pass, { k, v })` then takes the tokens into the cache:
   *
   * ```
   * k, v of entry b, row i < counts[b]  ->  token lengths[b] + i;   lengths[b] += counts[b]
   * ```
   *
   * Rows of k are normalised (`qkNorm`) and rotated (`rotary`) first, if the cache does that, and so are those of q. Rows of
   * more tokens than a ring has: the last ones stay.
   *
   * Rejects with FoveaError, as {@link planAttention} does.
   *
   * @example
   * const append = await cache.planAppend({ k: { shape: [1, 8, 1, 64] }, v: { shape: [1, 8, 1, 64] } });
   * append.encode(pass, { k, v });
   */
  planAppend(problem: AppendProblem): Promise<CacheAppendPlan> {
    return makeAppendPlan(this, problem);
  }

  /**
   * Appends tokens, submits the work and resolves once the GPU has accepted it. If there is no room and the cache was made
   * with a `maxCapacity`, it grows first. Calls run in their order, awaited or not. See {@link KvCache.planAppend}.
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

  /** @internal Grows, if the cache may, where tokens would find no room. */
  async makeRoom(counts: readonly number[]): Promise<void> {
    const { maxCapacity } = this.#resolved;
    const needed = Math.max(...this.#lengths.map((length, entry) => length + counts[entry]));
    if (needed <= this.capacity || needed > maxCapacity) return;
    const roomy = BLOCK * Math.ceil(Math.max(needed, 1.5 * this.capacity) / BLOCK);
    await this.grow(Math.min(maxCapacity, roomy));
  }

  /**
   * Takes tokens back: entries longer than their limit get that length; what they lose may be overwritten. Commands that
   * were encoded before still see it. As {@link KvCache.encodeTruncate}, in a submission of its own.
   *
   * @param lengths Limits from 0 up, for all entries or one each.
   */
  async truncate(lengths: number | readonly number[]): Promise<void> {
    await this.#submit((pass) => this.encodeTruncate(pass, lengths)).done;
  }

  /**
   * Records that tokens are taken back, as when a speculation fails: entries longer than their limit get that length.
   * Synchronous; allocates nothing and submits nothing.
   *
   * A ring has overwritten old tokens; `"limit"` if the next query would miss one of them: at most ring - window tokens
   * can be taken back.
   *
   * @param lengths Limits from 0 up, for all entries or one each.
   */
  encodeTruncate(target: GPUComputePassEncoder | GPUCommandEncoder, lengths: number | readonly number[]): void {
    this.#checkAlive();
    const limits = this.#perEntry("truncate", lengths).map((limit, entry) => Math.min(limit, this.#lengths[entry]));
    for (const [entry, limit] of limits.entries()) this.#checkKept(entry, limit);
    inPass(target, this.label, (pass) => this.state.limitLengths(pass, limits));
    this.#lengths = limits;
    const { sinkTokens } = this.#resolved;
    // An entry that has nothing but sink tokens writes the ring anew before it looks at it.
    this.#peaks = this.#peaks.map((peak, entry) => (limits[entry] <= sinkTokens ? limits[entry] : peak));
  }

  /** Throws FoveaError if a ring has lost a key that the query after `limit` tokens sees. */
  #checkKept(entry: number, limit: number): void {
    const { ring, sinkTokens, window = 0 } = this.#resolved;
    const peak = this.#peaks[entry];
    if (ring === 0 || limit <= sinkTokens) return;
    const oldest = Math.max(sinkTokens, peak - ring);
    check(
      limit - window >= oldest || oldest === sinkTokens,
      "limit",
      () =>
        `${this.label}: entry ${entry} had ${peak} tokens and its ring keeps the last ${ring}; a query after ${limit} of them would miss keys of its window of ${window}. Take back at most ring - window = ${ring - window} tokens, or all of them with reset().`,
    );
  }

  /** Forgets all tokens. In a submission of its own; `encodeTruncate(pass, 0)` is the same as a command. */
  reset(): Promise<void> {
    return this.truncate(0);
  }

  /**
   * Another cache with the same tokens and options. The prefix is copied on the GPU, once: a contiguous cache cannot share
   * rows (`createPagedKvCache` shares pages). What is encoded and not yet submitted is not in the copy.
   */
  async fork(options: ForkOptions = {}): Promise<KvCache> {
    this.#checkAlive();
    const { lengths, label = this.label } = options;
    const limits = lengths === undefined ? this.#lengths : this.#perEntry("fork", lengths);
    const kept = limits.map((limit, entry) => Math.min(limit, this.#lengths[entry]));
    for (const [entry, limit] of kept.entries()) this.#checkKept(entry, limit);
    const { device, norm } = this;
    const resolved = { ...this.#resolved, label };
    const { batch } = resolved;
    const rotary = this.rotary && copyRotary(device, label, this.rotary);
    const state = await CacheState.make(device, label, batch, 0);
    const fork = await KvCache.make({ device, resolved, state, norm, rotary });
    try {
      const { done } = guarded(device, label, () => {
        const encoder = device.createCommandEncoder({ label });
        copyRows(encoder, this.#copyPlan(Math.max(...this.#peaks)), this.#source, fork.#source);
        encoder.copyBufferToBuffer(this.state.tensor.buffer, 0, state.tensor.buffer, 0, 4 * state.countsAt);
        fork.#lengths = [...this.#lengths];
        fork.#peaks = [...this.#peaks];
        fork.encodeTruncate(encoder, kept);
        device.queue.submit([encoder.finish()]);
      });
      await done;
    } catch (error) {
      fork.destroy();
      throw error;
    }
    return fork;
  }

  /**
   * Gives entry `to` the tokens of entry `from`, in place of its own: a prefix for another sequence, or a beam that goes on.
   * Copied on the GPU, once, through memory that is freed again. What is encoded and not yet submitted is not in the copy.
   *
   * @param tokens How many of them. Default all.
   */
  async forkEntry(from: number, to: number, tokens?: number): Promise<void> {
    this.#checkAlive();
    const { device, label } = this;
    const { batch } = this.#resolved;
    for (const [name, entry] of Object.entries({ from, to })) {
      check(
        Number.isInteger(entry) && entry >= 0 && entry < batch,
        "argument",
        () => `${label}.forkEntry: ${name} must be a batch entry, 0 to ${batch - 1}, got ${entry}.`,
      );
    }
    const length = this.#lengths[from];
    check(
      tokens === undefined || (Number.isInteger(tokens) && tokens >= 0),
      "argument",
      () => `${label}.forkEntry: tokens must be a whole number from 0 up, got ${tokens}.`,
    );
    const kept = Math.min(tokens ?? length, length);
    this.#checkKept(from, kept);
    const { done } = guarded(device, label, () => {
      const encoder = device.createCommandEncoder({ label });
      const freed =
        from === to ? [] : copyEntryRows(device, encoder, this.#copyPlan(this.#peaks[from]), this, from, to);
      this.#lengths[to] = length;
      this.#peaks[to] = this.#peaks[from];
      this.encodeTruncate(
        encoder,
        this.#lengths.map((other, entry) => (entry === to ? kept : other)),
      );
      device.queue.submit([encoder.finish()]);
      for (const buffer of freed) buffer.destroy();
    });
    await done;
  }

  /**
   * Makes room for longer sequences: memory is allocated anew, the rows are copied on the GPU, and the old memory is freed.
   * Plans of appends follow; a plan of attention was made for the old memory, and refuses. Submit what is encoded before:
   * its commands know the old memory. A ring has no need to grow: its capacity costs nothing.
   *
   * @param capacity Tokens; no fewer than now.
   */
  async grow(capacity: number): Promise<void> {
    this.#checkAlive();
    const { device, label } = this;
    const before = this.#resolved;
    const resolved = resolveCapacity(before, capacity, this.rotary ? ANGLE_POSITIONS : STATE_LIMIT - 1);
    if (capacity === before.capacity) return;
    const { value: source, done: made } = guarded(device, label, () => sourceOf(device, resolved, this.state.tensor));
    const free = ({ k, v }: KvSource) => [k, v].map((used) => used.destroy());
    try {
      await Promise.all([made, source.k.allocated, source.v.allocated]);
      this.#checkAlive();
      check(
        this.#resolved === before,
        "argument",
        () => `${label}: the cache grew to ${this.capacity} tokens meanwhile; await one grow() before the next.`,
      );
    } catch (error) {
      free(source);
      throw error;
    }
    const { done } = guarded(device, label, () => {
      const encoder = device.createCommandEncoder({ label });
      copyRows(encoder, this.#copyPlan(Math.max(...this.#peaks)), this.#source, source);
      device.queue.submit([encoder.finish()]);
    });
    free(this.#source);
    this.#source = source;
    this.#resolved = resolved;
    await done;
  }

  /** @internal For plans: takes the room, or throws FoveaError and changes nothing. */
  reserve(label: string, counts: readonly number[]): void {
    const { capacity, maxCapacity } = this.#resolved;
    const longer = this.#lengths.map((length, entry) => length + counts[entry]);
    const full = longer.findIndex((length) => length > capacity);
    check(
      full < 0,
      "limit",
      () =>
        `${label}: the cache is full: entry ${full} has ${this.#lengths[full]} of ${capacity} tokens, and ${counts[full]} more were given. ${
          longer[full] <= maxCapacity
            ? `Call grow(${longer[full]} or more) first, or append(), which does.`
            : "Take tokens back with truncate() or reset(), call grow(), or make the cache with a larger capacity or a window."
        }`,
    );
    this.#lengths = longer;
    this.#peaks = this.#peaks.map((peak, entry) => Math.max(peak, longer[entry]));
  }

  /** Frees the cache's memory. Work that was submitted before still runs. */
  destroy(): void {
    this.#destroyed = true;
    this.#queue.destroy();
    this.#source.k.destroy();
    this.#source.v.destroy();
    this.state.destroy();
    this.rotary?.angles.destroy();
  }

  #checkAlive(): void {
    check(!this.#destroyed, "destroyed", () => `${this.label}: the cache was destroyed.`);
    checkDevice(this.device);
  }

  #perEntry(what: string, given: number | readonly number[]): number[] {
    const { batch } = this.#resolved;
    const list = typeof given === "number" ? new Array<number>(batch).fill(given) : given;
    check(
      Array.isArray(list) && list.length === batch && list.every((n) => Number.isInteger(n) && n >= 0),
      "argument",
      () =>
        `${this.label}.${what}: lengths must be a whole number from 0 up, or ${batch} of them (one a batch entry), got ${given}.`,
    );
    return [...list];
  }

  /** What to copy of entries that have had so many tokens. */
  #copyPlan(tokens: number): CopyPlan {
    const { batch, kvHeads, rows } = this.#resolved;
    return { batch, kvHeads, used: Math.min(tokens, this.#source.k.shape[2]), rows };
  }

  #submit(record: (pass: GPUComputePassEncoder) => void) {
    const { device, label } = this;
    this.#checkAlive();
    return guarded(device, label, () => {
      const encoder = device.createCommandEncoder({ label });
      inPass(encoder, label, record);
      device.queue.submit([encoder.finish()]);
    });
  }
}

function resolveCapacity(before: ResolvedCache, capacity: number, most: number): ResolvedCache {
  const { label } = before;
  check(
    before.ring === 0,
    "argument",
    () => `${label}.grow: a ring does not grow; give createKvCache a larger capacity, which costs it no memory.`,
  );
  check(
    Number.isInteger(capacity) && capacity >= before.capacity && capacity <= most,
    "argument",
    () =>
      `${label}.grow: capacity must be a whole number from ${before.capacity}, what it is, to ${most}, got ${capacity}.`,
  );
  return { ...before, capacity, maxCapacity: Math.max(before.maxCapacity, capacity) };
}

/**
 * Makes a cache for the keys and values of `batch` sequences. Memory is allocated once; tokens are appended in place, by
 * one dispatch, and nothing of the past is read, copied or waited for.
 *
 * ```
 * f32, f16, bf16   [B, Hkv, rows, D] and [B, Hkv, rows, Dv]
 * int8, int4       rows of words: an f32 scale for each group of channels, then the integers
 * rows             capacity; with a window sinkTokens + ring, used again and again
 * ```
 *
 * Rejects with FoveaError for options that make no sense, and for memory that the device cannot bind or has not.
 *
 * @example
 * const cache = await createKvCache(device, { batch: 1, kvHeads: 8, headDim: 64, capacity: 4096, rotary: {} });
 * await cache.append(k, v, { q }); // k and q are rotated
 */
export async function createKvCache(device: GPUDevice, options: KvCacheOptions): Promise<KvCache> {
  checkDevice(device);
  const resolved = resolveCache(options);
  const { label, batch, headDim } = resolved;
  const norm = await resolveNorm(label, options.qkNorm, headDim);
  const rotation = resolveRotation(label, options.rotary, { headDim, capacity: resolved.maxCapacity });
  const state = await CacheState.make(device, label, batch, 0);
  const rotary = rotation && anglesOf(device, label, rotation);
  return KvCache.make({ device, resolved, state, norm, rotary });
}
