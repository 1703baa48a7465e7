// Problems whose keys and values are in a cache: as problems of tensors, and what can't be asked of a cache.

import { check } from "../errors.ts";
import type { Layout, TensorSpec } from "../types.ts";
import type { KvSource, KvSourceOwner } from "./kv_source.ts";
import type { PerBatch, ScoreOptions } from "./options.ts";

/** Whether what a one-liner was given for keys is a cache. */
export const isCache = (keys: unknown): keys is KvSourceOwner =>
  typeof keys === "object" && keys !== null && "source" in keys;

/** What a problem says of its keys and values. */
interface Given {
  readonly k?: TensorSpec;
  readonly v?: TensorSpec;
  readonly cache?: KvSourceOwner;
  readonly layout?: Layout;
  readonly cuSeqlensQ?: PerBatch;
}

/**
 * The keys and values of a problem as the queries see them. Those of a cache are [B, Hkv, N, D] in the layout of the
 * problem, N being the most keys that an entry can have. Throws FoveaError("argument") for a cache that is none, or one
 * too many.
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
  const batch = cuSeqlensQ ? 1 : source.batch; // as of the queries, which then lie one after the other
  const spec = (dim: number): TensorSpec => ({
    shape: layout === "bmhd" ? [batch, capacity, kvHeads, dim] : [batch, kvHeads, capacity, dim],
  });
  return { k: spec(headDim), v: spec(vDim), source };
}

/** Throws FoveaError("argument") for options that a cache has no use for, or keys that a ring may have lost. */
export function checkCached(label: string, options: ScoreOptions, source: KvSource, seqQ: number): void {
  for (const name of ["kvLengths", "cuSeqlensKv"] as const) {
    check(
      options[name] === undefined,
      "argument",
      () => `${label}: the cache counts the keys of its entries; leave ${name} out.`,
    );
  }
  if (source.place !== "ring") return;
  const { window: [left] = [-1], attentionChunk = Number.POSITIVE_INFINITY, sinkTokens = 0, queryOffset } = options;
  const behind = Math.min(left < 0 ? Number.POSITIVE_INFINITY : left, attentionChunk - 1);
  const { window = source.ring } = source;
  check(
    !Number.isFinite(behind) || behind <= window,
    "argument",
    () =>
      `${label}: the cache was made for a window of ${window} keys before each query, and may have overwritten older ones; ${behind} were asked for. Make the cache with that window.`,
  );
  check(
    behind + seqQ <= source.ring,
    "argument",
    () =>
      `${label}: the ring keeps the last ${source.ring} keys; ${seqQ} queries with ${Number.isFinite(behind) ? `${behind} keys behind each may look at ${behind + seqQ}` : "no bound behind them may look at any"}. Give a window of at most [${source.ring - seqQ}, ...], or make the cache with a larger ring.`,
  );
  check(
    queryOffset === undefined,
    "argument",
    () => `${label}: queries of a ring stand at its last keys; leave queryOffset out.`,
  );
  check(
    sinkTokens <= source.sinkTokens,
    "argument",
    () => `${label}: sinkTokens is ${sinkTokens}, but the ring keeps only the first ${source.sinkTokens} keys.`,
  );
}
