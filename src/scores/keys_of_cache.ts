// Problems whose keys and values are in a cache, treated as problems of tensors.

import { check } from "../errors.ts";
import type { PerBatch } from "../plan/specs.ts";
import type { Layout, TensorSpec } from "../types.ts";

/** The sizes of a cache. */
interface CacheSizes {
  readonly batch: number;
  readonly kvHeads: number;
  readonly capacity: number;
  readonly headDim: number;
  readonly vDim: number;
}

/** The members of a problem that say what its keys and values are. */
interface Given<Source> {
  readonly k?: TensorSpec;
  readonly v?: TensorSpec;
  readonly cache?: { readonly source: Source };
  readonly layout?: Layout;
  readonly cuSeqlensQ?: PerBatch;
}

/**
 * The keys and values of a cache as the queries see them: [B, Hkv, N, D] in the layout of the
 * problem, N being the most keys that an entry can have. Throws FoveaError("argument") for a value
 * that isn't a cache, and for a cache beside k or v.
 */
export function keysOfCache<Source extends CacheSizes>(
  label: string,
  { k, v, cache, layout, cuSeqlensQ }: Given<Source>,
) {
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
