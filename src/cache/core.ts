// The inner part of a contiguous cache: memory, bookkeeping, and the commands that change both.

import type { KvSource, KvSourceOwner } from "../attention/kv_source.ts";
import { check } from "../errors.ts";
import { checkDevice, guarded } from "../gpu/buffers.ts";
import { ANGLE_POSITIONS } from "../kernels/rotary_angles.ts";
import { recordInto } from "../plan/target.ts";
import type { AppendMoment } from "./append_moment.ts";
import type { AppendTarget, CacheRotary, ResolvedNorm } from "./append_problem.ts";
import { type Growth, growingMoment } from "./growth.ts";
import { Ledger, type Turn } from "./ledger.ts";
import type { CacheLengths } from "./lengths.ts";
import { type CopyPlan, copyAll, copyEntries, copyRows, likeRotary, sourceOf } from "./memory.ts";
import type { ResolvedCache } from "./resolved.ts";
import { CacheState, ready, STATE_LIMIT } from "./state.ts";

/** If a cache chooses its capacity itself, it is a multiple of this many tokens. */
const BLOCK = 64;

export interface CacheParts {
  readonly device: GPUDevice;
  readonly resolved: ResolvedCache;
  readonly norm: ResolvedNorm | undefined;
  readonly rotary: CacheRotary | undefined;
  readonly tokens: CacheLengths;
}

/** The inner part of a {@link KvCache}, which checks the arguments of calls. */
export class CacheCore implements AppendTarget {
  readonly device: GPUDevice;
  readonly label: string;
  readonly state: CacheState;
  readonly norm: ResolvedNorm | undefined;
  readonly rotary: CacheRotary | undefined;
  readonly ledger: Ledger<CacheLengths>;
  readonly #tokens: CacheLengths;
  #resolved: ResolvedCache;
  #source: KvSource;
  #destroyed = false;

  private constructor({ device, resolved, norm, rotary, tokens }: CacheParts, state: CacheState) {
    this.device = device;
    this.label = resolved.label;
    this.state = state;
    this.norm = norm;
    this.rotary = rotary;
    this.#tokens = tokens;
    this.ledger = new Ledger(resolved.label, tokens);
    this.#resolved = resolved;
    this.#source = this.#checked(sourceOf(device, resolved, state.tensor));
  }

  /** Makes the memory of a cache. Takes over the angles, and frees them if it fails. */
  static async make(parts: CacheParts): Promise<CacheCore> {
    const { device, resolved, rotary } = parts;
    const { label, batch } = resolved;
    let state: CacheState | undefined;
    let core: CacheCore | undefined;
    try {
      const made = await CacheState.make(device, label, batch, 0);
      state = made;
      const { value, done } = guarded(device, label, () => new CacheCore(parts, made));
      core = value;
      const { k, v } = core.#source;
      await ready(done, [k, v, ...(rotary ? [rotary.angles] : [])]);
      return core;
    } catch (error) {
      core?.destroy();
      state?.destroy();
      rotary?.angles.destroy();
      throw error;
    }
  }

  get resolved(): ResolvedCache {
    return this.#resolved;
  }

  get source(): KvSource {
    return this.#source;
  }

  get destroyed(): boolean {
    return this.#destroyed;
  }

  /** The largest capacity that a cache can have. */
  get #most(): number {
    return this.rotary ? ANGLE_POSITIONS : STATE_LIMIT - 1;
  }

  get bytes(): number {
    const { k, v } = this.#source;
    return (
      this.state.bytes + k.buffer.size + v.buffer.size + (this.rotary?.angles.buffer.size ?? 0)
    );
  }

  checkAlive(): void {
    check(!this.#destroyed, "destroyed", () => `${this.label}: the cache was destroyed.`);
    checkDevice(this.device);
  }

  /** Takes tokens back: entries longer than their limit get that length. */
  truncate(limits: readonly number[]): Promise<void> {
    const change = (tokens: CacheLengths) => tokens.truncate(limits);
    return this.ledger.call(async (turn) => {
      this.checkAlive();
      const kept = turn.apply(change);
      await this.#submit((encoder) =>
        recordInto(encoder, this.label, (pass) => this.state.limitLengths(pass, kept)),
      );
    }, change);
  }

  encodeTruncate(
    target: GPUComputePassEncoder | GPUCommandEncoder,
    limits: readonly number[],
  ): void {
    this.ledger.now(`${this.label}.encodeTruncate`, (tokens) => {
      const kept = tokens.truncate(limits);
      recordInto(target, this.label, (pass) => this.state.limitLengths(pass, kept));
    });
  }

  /** Makes another cache with the first tokens of each entry. */
  fork(label: string, limits: readonly number[] | undefined): Promise<CacheCore> {
    return this.ledger.call(async () => {
      this.checkAlive();
      const { device, norm } = this;
      const copied = this.#copyPlan(this.#tokens.mostOf());
      const tokens = this.#tokens.clone(label);
      const kept = tokens.truncate(limits ?? tokens.lengths);
      const resolved = { ...this.#resolved, label };
      const rotary = this.rotary && likeRotary(device, label, this.rotary);
      const fork = await CacheCore.make({ device, resolved, norm, rotary, tokens });
      const { state } = fork;
      try {
        this.checkAlive();
        await this.#submit((encoder) => {
          copyRows(encoder, copied, this.#source, fork.#source);
          copyAll(encoder, this.rotary?.angles, rotary?.angles);
          encoder.copyBufferToBuffer(
            this.state.tensor.buffer,
            0,
            state.tensor.buffer,
            0,
            4 * state.countsAt,
          );
          recordInto(encoder, label, (pass) => state.limitLengths(pass, kept));
        });
        return fork;
      } catch (error) {
        fork.destroy();
        throw error;
      }
    });
  }

  /** Gives entry i the tokens of entry `sources[i]`, no more than its limit. */
  rearrange(sources: readonly number[], limits: readonly number[] | undefined): Promise<void> {
    const change = (tokens: CacheLengths) => {
      tokens.reorder(sources);
      return limits && tokens.truncate(limits);
    };
    return this.ledger.call(async (turn) => {
      this.checkAlive();
      const copied = this.#copyPlan(this.#tokens.mostOf(sources.filter((from, to) => from !== to)));
      const kept = turn.apply(change);
      let between: GPUBuffer | undefined;
      try {
        await this.#submit((encoder) => {
          between = copyEntries(this.device, encoder, copied, this, sources);
          if (kept) recordInto(encoder, this.label, (pass) => this.state.limitLengths(pass, kept));
        });
      } finally {
        between?.destroy();
      }
    }, change);
  }

  grow(capacity: number): Promise<void> {
    return this.ledger.call(
      async (turn) => {
        this.checkAlive();
        const growth = await this.#grow(turn, capacity);
        growth?.keep();
      },
      (tokens) => tokens.grow(capacity, this.#most),
    );
  }

  /** The meaning of an append that is called now. */
  moment(): AppendMoment {
    return growingMoment(this.ledger, {
      roomFor: (counts) => this.#roomFor(counts),
      grow: (turn, capacity) => this.#grow(turn, capacity),
    });
  }

  /** See {@link KvSourceOwner}. */
  inTurn<T>(work: (cache: KvSourceOwner) => Promise<T>): Promise<T> {
    return this.ledger.call(() => work({ source: { ...this.#source, checkIdle: undefined } }));
  }

  destroy(): void {
    this.#destroyed = true;
    this.#source.k.destroy();
    this.#source.v.destroy();
    this.state.destroy();
    this.rotary?.angles.destroy();
  }

  /** Makes memory for more tokens, and copies those that the cache has. */
  async #grow(turn: Turn<CacheLengths>, capacity: number): Promise<Growth | undefined> {
    const before = { resolved: this.#resolved, source: this.#source };
    this.#tokens.checkCapacity(capacity, this.#most);
    if (capacity === before.resolved.capacity) return undefined;
    const { device, label } = this;
    const resolved = {
      ...before.resolved,
      capacity,
      maxCapacity: Math.max(before.resolved.maxCapacity, capacity),
    };
    const { value: source, done } = guarded(device, label, () =>
      sourceOf(device, resolved, this.state.tensor),
    );
    const after = { resolved, source: this.#checked(source) };
    const settle = (kept: typeof before, other: KvSource) => {
      this.#resolved = kept.resolved;
      this.#source = kept.source;
      other.k.destroy();
      other.v.destroy();
      if (this.#destroyed) this.destroy();
    };
    try {
      await ready(done, [source.k, source.v]);
      this.checkAlive();
      const copied = this.#copyPlan(this.#tokens.mostOf());
      await this.#submit((encoder) => copyRows(encoder, copied, before.source, source));
      this.checkAlive();
      turn.apply((tokens) => tokens.grow(capacity, this.#most));
    } catch (error) {
      settle(before, source);
      throw error;
    }
    this.#resolved = after.resolved;
    this.#source = after.source;
    return {
      keep: () => settle(after, before.source),
      undo: () => settle(before, after.source),
    };
  }

  /**
   * The capacity to grow to for so many more tokens, if there is no room and the cache may grow by
   * itself.
   */
  #roomFor(counts: readonly number[]): number | undefined {
    const { capacity, maxCapacity } = this.#resolved;
    const needed = this.#tokens.needed(counts);
    if (needed <= capacity || needed > maxCapacity) return undefined;
    return Math.min(maxCapacity, BLOCK * Math.ceil(Math.max(needed, 1.5 * capacity) / BLOCK));
  }

  /** A source whose plans refuse to encode while calls wait. */
  #checked(source: KvSource): KvSource {
    return { ...source, checkIdle: (label) => this.ledger.checkIdle(label) };
  }

  /** What to copy of entries that had up to so many tokens. */
  #copyPlan(tokens: number): CopyPlan {
    const { batch, kvHeads, rows } = this.#resolved;
    return { batch, kvHeads, used: Math.min(tokens, this.#source.k.shape[2]), rows };
  }

  #submit(record: (encoder: GPUCommandEncoder) => void): Promise<void> {
    const { device, label } = this;
    const { done } = guarded(device, label, () => {
      const encoder = device.createCommandEncoder({ label });
      record(encoder);
      device.queue.submit([encoder.finish()]);
    });
    return done;
  }
}
