// Problems whose keys and values are in a cache, as problems of tensors.

import { check, reading } from "../errors.ts";
import type { PerBatch } from "../plan/specs.ts";
import type { Layout, TensorSpec } from "../types.ts";
import type { KvSourceOwner } from "./kv_source.ts";

/** Whether what a one-liner was given for keys is a cache. */
export const isCache = (keys: unknown): keys is KvSourceOwner =>
  typeof keys === "object" && keys !== null && reading("attention: k", () => "source" in keys);

/**
 * Runs `work` in the order of the calls of a cache, with the cache as it is now.
 *
 * @param awaited What `work` awaits when its turn has come
 */
export function inTurn<T>(
  cache: KvSourceOwner,
  awaited: Promise<unknown>,
  work: (cache: KvSourceOwner) => Promise<T>,
): Promise<T> {
  awaited.catch(() => {}); // which `work` will see
  return cache.inTurn?.(work) ?? work(cache);
}

/** What a problem says of its keys and values. */
interface Given {
  readonly k?: TensorSpec;
  readonly v?: TensorSpec;
  readonly cache?: KvSourceOwner;
  readonly layout?: Layout;
  readonly cuSeqlensQ?: PerBatch;
}

/**
 * The keys and values of a problem as the queries see them. Those of a cache are [B, Hkv, N, D] in
 * the layout of the problem, N being the most keys that an entry can have. Throws
 * FoveaError("argument") for a cache that is none, or one too many.
 */
export function keysAndValues(label: string, { k, v, cache, layout, cuSeqlensQ }: Given) {
  if (cache === undefined) return { k, v, source: undefined };
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
  // as of the queries, which then lie one after the other
  const batch = cuSeqlensQ ? 1 : source.batch;
  const spec = (dim: number): TensorSpec => ({
    shape: layout === "bmhd" ? [batch, capacity, kvHeads, dim] : [batch, kvHeads, capacity, dim],
  });
  return { k: spec(headDim), v: spec(vDim), source };
}
