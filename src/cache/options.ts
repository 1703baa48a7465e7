// What a cache is made for: checked sizes, and where its rows lie.

import { check, show } from "../errors.ts";
import type { Numbers, OptionNames, Taken } from "../given.ts";
import { Tensor, tensor } from "../gpu/tensor.ts";
import { quantisedWords } from "../kernels/cache.ts";
import type { Quantisation } from "../kernels/kv_access.ts";
import { ANGLE_POSITIONS, angleTables, angleTablesShape } from "../kernels/rotary_angles.ts";
import { checkNames, takeOptions } from "../options.ts";
import {
  type ResolvedRotary,
  ROTARY_OPTIONS,
  type RotaryOptions,
  resolveRotary,
} from "../positions/rotary_options.ts";
import type { CacheRotary, ResolvedNorm } from "./append_problem.ts";
import { checkStateSize, STATE_LIMIT } from "./state.ts";

/** Options of `fork` of a cache. */
export interface ForkOptions {
  /** Tokens to keep, for all entries or one each; entries with fewer keep theirs. Default all. */
  readonly lengths?: number | Numbers;
  /** Default that of the cache. */
  readonly label?: string;
}

/** Their names. */
export const FORK_OPTIONS: OptionNames<ForkOptions> = { lengths: "any", label: "string" };

/** How a cache stores the elements of k and v. */
export type CacheDtype = "f32" | "f16" | "bf16" | "int8" | "int4";

/**
 * RMSNorm of the rows of q and k, before they are rotated: x / sqrt(mean x^2 + epsilon) * weight.
 * Right to f32 for rows of any magnitude; zeros stay zeros, without an epsilon too.
 */
export interface QkNorm {
  /** [D], numbers or a tensor, which is read once when the cache is made. Default 1 throughout. */
  readonly q?: readonly number[] | Float32Array | Tensor;
  readonly k?: readonly number[] | Float32Array | Tensor;
  /** Added to the mean square; a number from 0 up. Default 1e-6. */
  readonly epsilon?: number;
}

/** What appends of every kind of cache do to rows. */
export interface RowOptions {
  /**
   * How k and v are stored. int8 and int4 are whole numbers times a scale: symmetric, to the
   * nearest, ties to even, with
   * |x - stored| <= scale / 2 where scale = max |x| / 127 or / 7 of the channels that share it. Default `"f32"`.
   */
  readonly dtype?: CacheDtype;
  /**
   * Channels of a row that share a scale, of k and v, or each its own: the head dim, or a multiple
   * of 8 that divides it. Default the head dim, one scale for each token and head.
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
  /** Hkv */
  readonly kvHeads: number;
  /** D */
  readonly headDim: number;
  /** Dv. Default D. */
  readonly vDim?: number;
  /**
   * The most tokens of a sequence, which is what memory is allocated for. With a `window` they cost
   * no memory, and the default is 2^23; without, there is none.
   */
  readonly capacity?: number;
  /**
   * `append` lets the cache grow up to this many tokens. Default `capacity`: it does not grow by
   * itself.
   */
  readonly maxCapacity?: number;
  /**
   * Keys before its own that a query will see at most, the left side of attention's window. Memory
   * is then a ring: old tokens make room for new ones. Default: all tokens are kept.
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
const QK_NORM = { q: "any", k: "any", epsilon: "number" } as const;

/** Positions that a ring can count to, if nothing is said. */
const RING_CAPACITY = 2 ** 23;
const RING_SLACK = 256;

/** Where the rows of a cache lie, and what they consist of. */
export interface ResolvedCache {
  readonly label: string;
  readonly batch: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vDim: number;
  readonly capacity: number;
  readonly maxCapacity: number;
  /** Keys before its own that a query sees; undefined without a ring. */
  readonly window: number | undefined;
  readonly ring: number;
  readonly sinkTokens: number;
  readonly rows: ResolvedRows;
}

/** How a row is stored. */
export interface ResolvedRows {
  readonly dtype: "f32" | "f16" | "bf16" | "u32";
  readonly quantised: Quantisation | undefined;
  /** Elements of a row of k and v, padding included. */
  readonly kElements: number;
  readonly vElements: number;
}

/**
 * The options of a cache as they are at the call. Throws FoveaError("argument") for names that
 * there are not.
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

/**
 * Checks the options of a cache and fills in the defaults. Throws FoveaError("argument") that names
 * what is wrong.
 */
export function resolveCache(options: Taken<KvCacheOptions>): ResolvedCache {
  const { label = "kvCache" } = options;
  const { batch, kvHeads, headDim, vDim = headDim, window, sinkTokens = 0 } = options;
  for (const [name, value] of Object.entries({ batch, kvHeads, headDim, vDim }))
    whole(label, name, value, 1);
  checkStateSize(
    `${label}: lengths and counts of ${batch} sequences`,
    "Make several caches.",
    batch,
    0,
  );
  check(
    window !== undefined || (options.ring === undefined && options.sinkTokens === undefined),
    "argument",
    () =>
      `${label}: ring and sinkTokens are for caches with a window; give window, or leave them out.`,
  );
  const capacity = (options.capacity ??
    (window === undefined ? undefined : RING_CAPACITY)) as number;
  whole(label, "capacity", capacity, 1, STATE_LIMIT - 1);
  const { maxCapacity = capacity } = options;
  whole(label, "maxCapacity", maxCapacity, capacity, STATE_LIMIT - 1);
  let ring = 0;
  if (window !== undefined) {
    whole(label, "window", window, 0);
    whole(label, "sinkTokens", sinkTokens, 0);
    ring = options.ring ?? window + RING_SLACK;
    whole(label, "ring", ring, window + 1);
  }
  const rows = resolveRows(label, options, headDim, vDim);
  // a ring has no memory to save
  const limits = { capacity: ring > 0 ? maxCapacity : capacity, maxCapacity };
  return { label, batch, kvHeads, headDim, vDim, ...limits, window, ring, sinkTokens, rows };
}

/** Throws FoveaError("argument") unless the value is a whole number in a range. */
export function whole(
  label: string,
  name: string,
  value: unknown,
  least: number,
  most = 2 ** 29 - 1,
): void {
  check(
    Number.isInteger(value) && (value as number) >= least && (value as number) <= most,
    "argument",
    () => `${label}: ${name} must be a whole number from ${least} to ${most}, got ${show(value)}.`,
  );
}

/** How rows of these head dims are stored. */
export function resolveRows(
  label: string,
  options: RowOptions,
  headDim: number,
  vDim: number,
): ResolvedRows {
  const { dtype = "f32", groupSize } = options;
  check(
    ["f32", "f16", "bf16", "int8", "int4"].includes(dtype),
    "argument",
    () => `${label}: dtype must be "f32", "f16", "bf16", "int8" or "int4", got ${show(dtype)}.`,
  );
  if (dtype === "f32" || dtype === "f16" || dtype === "bf16") {
    check(
      groupSize === undefined,
      "argument",
      () => `${label}: groupSize is for int8 and int4; rows of ${dtype} have no scales.`,
    );
    // Whole vec4s: no two rows share a word, and attention may read them as vec4s.
    const padded = (dim: number) => 4 * Math.ceil(dim / 4);
    return { dtype, quantised: undefined, kElements: padded(headDim), vElements: padded(vDim) };
  }
  const groups = typeof groupSize === "object" ? groupSize : { k: groupSize, v: groupSize };
  const group = (name: "k" | "v", dim: number) => {
    const size = groups?.[name] ?? dim;
    check(
      size === dim || (Number.isInteger(size) && size > 0 && size % 8 === 0 && dim % size === 0),
      "argument",
      () =>
        `${label}: groupSize of ${name} must be ${dim}, its head dim, or a multiple of 8 that divides it, got ${show(size)}.`,
    );
    return size;
  };
  const bits = dtype === "int8" ? 8 : 4;
  const quantised: Quantisation = { bits, groupK: group("k", headDim), groupV: group("v", vDim) };
  return {
    dtype: "u32",
    quantised,
    kElements: quantisedWords(headDim, bits, quantised.groupK),
    vElements: quantisedWords(vDim, bits, quantised.groupV),
  };
}

/** The norm of a cache, its weights as numbers. */
export async function resolveNorm(
  label: string,
  norm: QkNorm | undefined,
  headDim: number,
): Promise<ResolvedNorm | undefined> {
  if (norm === undefined) return undefined;
  check(
    typeof norm === "object" && norm !== null,
    "argument",
    () => `${label}: qkNorm must be { q?, k?, epsilon? }, got ${show(norm)}.`,
  );
  checkNames(`${label}: qkNorm`, norm, QK_NORM);
  const { epsilon = 1e-6 } = norm;
  check(
    typeof epsilon === "number" && Number.isFinite(epsilon) && epsilon >= 0,
    "argument",
    () => `${label}: qkNorm.epsilon must be a number from 0 up, got ${show(epsilon)}.`,
  );
  const weights = async (name: "q" | "k") => {
    const given = norm[name];
    if (given === undefined) return undefined;
    const values = Float32Array.from(given instanceof Tensor ? await given.read() : given);
    check(
      values.length === headDim && values.every(Number.isFinite),
      "argument",
      () =>
        `${label}: qkNorm.${name} must be ${headDim} finite numbers, one a channel, got ${values.length}.`,
    );
    return values;
  };
  return { epsilon, q: await weights("q"), k: await weights("k") };
}

/** The checked rotary embedding of a cache. */
export function resolveRotation(
  label: string,
  options: RotaryOptions | undefined,
  { headDim, capacity }: Pick<ResolvedCache, "headDim" | "capacity">,
): ResolvedRotary | undefined {
  if (options === undefined) return undefined;
  check(
    options !== null,
    "argument",
    () => `${label}: rotary must be options of a rotary embedding, got null.`,
  );
  check(
    capacity <= ANGLE_POSITIONS,
    "argument",
    () =>
      `${label}: rotary positions end at ${ANGLE_POSITIONS}; a capacity of ${capacity} goes beyond.`,
  );
  return resolveRotary(
    `${label}: rotary`,
    headDim,
    takeOptions(`${label}: rotary`, options, ROTARY_OPTIONS),
  );
}

/** Its angles on the GPU. */
export function anglesOf(device: GPUDevice, label: string, resolved: ResolvedRotary): CacheRotary {
  const { frequencies, attentionFactor, ...choice } = resolved;
  const data = angleTables(frequencies, attentionFactor);
  const angles = tensor(device, angleTablesShape(frequencies.length), {
    data,
    label: `${label} angles`,
  });
  return { choice: { ...choice, angles: "tables" }, angles };
}
