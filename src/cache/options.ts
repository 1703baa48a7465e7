// The options of a cache as callers give them, and the names of all options.

import { check, show } from "../errors.ts";
import type { Numbers, OptionNames, Taken } from "../given.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { takeOptions } from "../options.ts";
import type { RotaryOptions } from "../positions/rotary_options.ts";
import type { FloatDtype } from "../types.ts";

/** Options of `fork` of a cache. */
export interface ForkOptions {
  /** Tokens to keep, for all entries or one each; entries with fewer keep theirs. Default all. */
  readonly lengths?: number | Numbers;
  /** Label of the new cache. Default: that of the cache. */
  readonly label?: string;
}

/** The names of the options. */
export const FORK_OPTIONS: OptionNames<ForkOptions> = { lengths: "any", label: "string" };

/** How a cache stores the elements of k and v. */
export type CacheDtype = FloatDtype | "int8" | "int4";

/**
 * RMSNorm of the rows of q and k, before they are rotated: x / sqrt(mean x^2 + epsilon) * weight.
 * It is right to f32 for rows of any magnitude; zeros stay zeros, even with an epsilon of 0.
 */
export interface QkNorm {
  /** [D], numbers or a tensor, which is read once when the cache is made. Default 1 throughout. */
  readonly q?: readonly number[] | Float32Array | Tensor;
  readonly k?: readonly number[] | Float32Array | Tensor;
  /** Added to the mean square; a number from 0 up. Default 1e-6. */
  readonly epsilon?: number;
}

/** The options of every kind of cache: how appends store and change rows. */
export interface RowOptions {
  /**
   * How k and v are stored. int8 and int4 are whole numbers times a scale: symmetric, to the
   * nearest, ties to even, with
   * |x - stored| <= scale / 2 where scale = max |x| / 127 or / 7 of the channels that share it. Default `"f32"`.
   */
  readonly dtype?: CacheDtype;
  /**
   * Channels of a row that share a scale, for k and v together or for each of them: the head dim,
   * or a multiple of 8 that divides it. Default the head dim, one scale for each token and head.
   */
  readonly groupSize?: number | { readonly k?: number; readonly v?: number };
  /**
   * Rotate rows of k, and those of q that are given with them, by their positions: token j stands
   * at j. Default not.
   */
  readonly rotary?: RotaryOptions;
  /**
   * Normalise rows of k, and those of q that are given with them, as Qwen3 and Gemma 3 do. Default
   * not.
   */
  readonly qkNorm?: QkNorm;
}

/** Options of {@link createKvCache}. */
export interface KvCacheOptions extends RowOptions {
  /** B, sequences. */
  readonly batch: number;
  /** Hkv, heads of k and v. */
  readonly kvHeads: number;
  /** D, elements of a row of k. */
  readonly headDim: number;
  /** Dv, elements of a row of v. Default D. */
  readonly vDim?: number;
  /**
   * The most tokens of a sequence, which is what memory is allocated for. With a `window` tokens
   * cost no memory, and the default is 2^23; without it, there is no default.
   */
  readonly capacity?: number;
  /**
   * The capacity up to which `append` lets the cache grow. Default `capacity`: it does not grow by
   * itself.
   */
  readonly maxCapacity?: number;
  /**
   * The most keys before its own position that a query will see, which is the left side of
   * attention's window. Memory is then a ring: old tokens make room for new ones. Default: all
   * tokens are kept.
   */
  readonly window?: number;
  /**
   * Rows of the ring. ring - window is the most tokens that can be appended before attention looks
   * at the first of them, and the most that can be taken back. Default window + 256.
   */
  readonly ring?: number;
  /** The first tokens of each sequence that a ring keeps (arXiv 2309.17453). Default 0. */
  readonly sinkTokens?: number;
  /** Name of the GPU objects in errors and captures. Default `"kvCache"`. */
  readonly label?: string;
}

/** The names of the options. */
export const ROW_OPTIONS: OptionNames<RowOptions> = {
  dtype: "string",
  groupSize: "any",
  rotary: "any",
  qkNorm: "any",
};
export const KV_CACHE_OPTIONS: OptionNames<KvCacheOptions> = {
  ...ROW_OPTIONS,
  batch: "number",
  kvHeads: "number",
  headDim: "number",
  vDim: "number",
  capacity: "number",
  maxCapacity: "number",
  window: "number",
  ring: "number",
  sinkTokens: "number",
  label: "string",
};

/**
 * The options of a cache as they are at the call. Throws FoveaError("argument") for unknown names.
 */
export function takeCacheOptions(given: KvCacheOptions): Taken<KvCacheOptions> {
  check(
    typeof given === "object" && given !== null,
    "argument",
    () =>
      `kvCache: a cache is made from { batch, kvHeads, headDim, capacity, ... }, got ${show(given)}.`,
  );
  return takeOptions("kvCache", given, KV_CACHE_OPTIONS);
}
