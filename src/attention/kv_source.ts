// What attention reads of a cache: where keys and values lie, and how many there are.

import type { Tensor } from "../gpu/tensor.ts";
import type { KvAccess, Quantisation } from "../kernels/kv_access.ts";
import type { CachedKeys } from "../scores/cached_keys.ts";

/**
 * Keys and values in a cache, as the kernels read them. Key j stands at position j since its
 * sequence began. `place` says in which row of k and v it lies, which are [outer, Hkv, rows, D].
 *
 * - `rows`: outer is the batch entry, and the row is j.
 * - `ring`: outer is the batch entry, and from `sinkTokens` on the rows are used again: the row is
 *   sinkTokens + (j - sinkTokens) mod ring.
 * - `paged`: outer is the page that the table has for j div pageSize, and the row is j mod
 *   pageSize.
 */
export interface KvSource extends CachedKeys {
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vDim: number;
  /** The most positions that an entry can have: N of a problem. A ring holds fewer keys. */
  readonly capacity: number;
  /**
   * f32, f16 or bf16; quantised: u32, a row being the bits of one f32 scale for each group of
   * channels, then the integers (two's complement, lowest bits first).
   */
  readonly k: Tensor;
  readonly v: Tensor;
  /**
   * i32: one word, 1 + pagesPerEntry; then for each entry its length and, if paged, its page
   * numbers.
   */
  readonly state: Tensor;
  /** 0 if not paged. */
  readonly pageSize: number;
  readonly pagesPerEntry: number;
  readonly quantised?: Quantisation;
  /** How kernels read the cache: `kvAccess(source)` of kernels/kv_access. */
  readonly access: KvAccess;
  /**
   * Records commands that bring the state up to date, if the cache has changed on the host. Plans
   * call it before they read the state.
   */
  readonly update?: (pass: GPUComputePassEncoder) => void;
  /**
   * Throws FoveaError while calls of the cache wait, because they would run after commands that are
   * encoded now. Plans call it before they record.
   */
  readonly checkIdle?: ((label: string) => void) | undefined;
}

/** A cache of keys and values. */
export interface KvSourceOwner {
  /** The source as it is now. A cache that has grown has another one. */
  readonly source: KvSource;
  /**
   * @internal Runs `work` after the calls of the cache that were made before, at once if there are
   *   none, and before those that are made later. `work` gets the cache as of this moment, whatever
   *   happens to it meanwhile.
   */
  inTurn?<T>(work: (cache: KvSourceOwner) => Promise<T>): Promise<T>;
}
