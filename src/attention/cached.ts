// Problems whose keys and values are in a cache, treated as problems of tensors.

import { check, reading } from "../errors.ts";
import type { PerBatch } from "../plan/specs.ts";
import type { Layout, TensorSpec } from "../types.ts";
import type { KvSourceOwner } from "./kv_source.ts";

/** Whether the keys that a one-liner was given are a cache. */
export const isCache = (keys: unknown): keys is KvSourceOwner =>
  typeof keys === "object" && keys !== null && reading("attention: k", () => "source" in keys);

/**
 * Runs `work` when its turn comes among the calls of a cache, with the cache as it is now.
 *
 * @param awaited A promise that `work` awaits when its turn has come
 */
export function inTurn<T>(
  cache: KvSourceOwner,
  awaited: Promise<unknown>,
  work: (cache: KvSourceOwner) => Promise<T>,
): Promise<T> {
  awaited.catch(() => {}); // `work` will see the rejection
  return cache.inTurn?.(work) ?? work(cache);
}

/** The members of a problem that say what its keys and values are. */
interface Given {
  readonly k?: TensorSpec;
  readonly v?: TensorSpec;
  readonly cache?: KvSourceOwner;
  readonly layout?: Layout;
  readonly cuSeqlensQ?: PerBatch;
}

/**
 * The keys and values of a problem as the queries see them. Keys of a cache are [B, Hkv, N, D] in
 * the layout of the problem, N being the most keys that an entry can have. Throws
 * FoveaError("argument") for a value that isn't a cache, and for a cache beside k or v.
 */
export function keysAndValues(label: string, { k, v, cache, layout, cuSeqlensQ }: Given) {
  if (cache === undefined) return { k, v, cache: undefined };
  const source = cache?.source;
  check(
    typeof source === "object" && source !== null,
    "argument",
    () => `${label}: cache must come from createKvCache() or createPagedKvCache(), got ${cache}.`,
  );
  check(
    k === undefined && v === undefined,
    "argument",
    () => `${label}: the keys and values are those of the cache; leave k and v out.`,
  );
  const { kvHeads, capacity, headDim, vDim } = source;
  // Queries that lie one after the other have a batch axis of 1, and so do the keys.
  const batch = cuSeqlensQ ? 1 : source.batch;
  const spec = (dim: number): TensorSpec => ({
    shape: layout === "bmhd" ? [batch, capacity, kvHeads, dim] : [batch, kvHeads, capacity, dim],
  });
  return { k: spec(headDim), v: spec(vDim), cache: source };
}
