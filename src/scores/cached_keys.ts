// The properties of keys in a cache that scores depend on, and the options that a cache rules out.

import { check } from "../errors.ts";
import type { TakenScores } from "./options.ts";

/** Keys in a cache: how many entries there are, and which of their keys the cache still has. */
export interface CachedKeys {
  readonly place: "rows" | "ring" | "paged";
  readonly batch: number;
  /**
   * Rows at the start of a ring that keep their tokens, and the number of the others, which are
   * used again. Both are 0 without a ring.
   */
  readonly sinkTokens: number;
  readonly ring: number;
  /**
   * For a ring: how many keys before its own position a query may look at, even after tokens were
   * removed.
   */
  readonly window?: number;
}

/**
 * Throws FoveaError("argument") for options that don't go with a cache, or that need keys which a
 * ring may have lost.
 */
export function checkCached(
  label: string,
  options: TakenScores,
  cache: CachedKeys,
  seqQ: number,
): void {
  for (const name of ["kvLengths", "cuSeqlensKv"] as const) {
    check(
      options[name] === undefined,
      "argument",
      () => `${label}: the cache counts the keys of its entries; leave ${name} out.`,
    );
  }
  if (cache.place !== "ring") return;
  const {
    window: [left] = [-1],
    attentionChunk = Number.POSITIVE_INFINITY,
    sinkTokens = 0,
    queryOffset,
  } = options;
  const behind = Math.min(left < 0 ? Number.POSITIVE_INFINITY : left, attentionChunk - 1);
  const { window = cache.ring } = cache;
  check(
    !Number.isFinite(behind) || behind <= window,
    "argument",
    () =>
      `${label}: the cache was made for a window of ${window} keys before each query, and may have overwritten older ones; ${behind} were asked for. Make the cache with that window.`,
  );
  check(
    behind + seqQ <= cache.ring,
    "argument",
    () =>
      `${label}: the ring keeps the last ${cache.ring} keys; ${seqQ} queries with ${Number.isFinite(behind) ? `${behind} keys behind each may look at ${behind + seqQ}` : "no bound behind them may look at any"}. Give a window of at most [${cache.ring - seqQ}, ...], or make the cache with a larger ring.`,
  );
  check(
    queryOffset === undefined,
    "argument",
    () => `${label}: queries of a ring stand at its last keys; leave queryOffset out.`,
  );
  check(
    sinkTokens <= cache.sinkTokens,
    "argument",
    () =>
      `${label}: sinkTokens is ${sinkTokens}, but the ring keeps only the first ${cache.sinkTokens} keys.`,
  );
}
