// Calls whose keys and values are in a cache.

import { reading } from "../errors.ts";
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
