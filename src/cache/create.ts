// Makes contiguous caches.

import { checkDevice } from "../gpu/buffers.ts";
import { KvCache } from "./contiguous.ts";
import { CacheCore } from "./core.ts";
import { CacheLengths } from "./lengths.ts";
import { checkCacheMemory } from "./memory.ts";
import { type KvCacheOptions, takeCacheOptions } from "./options.ts";
import { anglesOf, resolveCache, resolveNorm, resolveRotation } from "./resolved.ts";

/**
 * Makes a cache for the keys and values of `batch` sequences. Memory is allocated once; tokens are
 * appended in place, by one dispatch, and nothing of the past is read, copied or waited for.
 *
 * ```
 * f32, f16, bf16   [B, Hkv, rows, D] and [B, Hkv, rows, Dv]
 * int8, int4       rows of words: an f32 scale for each group of channels, then the integers
 * rows             capacity; with a window sinkTokens + ring, used again and again
 * ```
 *
 * Rejects with FoveaError for options that make no sense, for memory that the device cannot bind,
 * and for memory that it doesn't have.
 *
 * @example
 * const cache = await createKvCache(device, {
 *   batch: 1,
 *   kvHeads: 8,
 *   headDim: 64,
 *   capacity: 4096,
 *   rotary: {},
 * });
 * await cache.append(k, v, { q }); // k and q are rotated
 */
export async function createKvCache(device: GPUDevice, given: KvCacheOptions): Promise<KvCache> {
  checkDevice(device);
  const options = takeCacheOptions(given);
  const resolved = resolveCache(options);
  const { label, headDim } = resolved;
  const rotation = resolveRotation(label, options.rotary, {
    headDim,
    capacity: resolved.maxCapacity,
  });
  checkCacheMemory(device, resolved);
  const norm = await resolveNorm(label, options.qkNorm, headDim);
  const rotary = rotation && anglesOf(device, label, rotation);
  const tokens = CacheLengths.empty(resolved, resolved);
  return KvCache.make(await CacheCore.make({ device, resolved, norm, rotary, tokens }));
}
