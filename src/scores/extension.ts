// The options that few problems have, beyond causality and windows. Plain attention is planned
// without loading this file and the descriptors of those options.

import { checkCached } from "./cached_keys.ts";
import type { GivenScores } from "./descriptor.ts";
import { presentOptions } from "./descriptors.ts";
import type { ResolvedOptions } from "./resolved.ts";
import { resolveEntries } from "./sequences.ts";

export { capturesOf } from "./functions.ts";
export { keysOfCache } from "./keys_of_cache.ts";
export { layTables } from "./table_memory.ts";

/** Checks the options that few problems have. Throws FoveaError that names the option. */
export function resolveExtended(
  given: GivenScores,
  positions: Pick<ResolvedOptions, "alignEnd" | "offset">,
) {
  const { label, options, cache } = given;
  const entries = resolveEntries(given);
  const { sizes, packed } = entries;
  if (cache) checkCached(label, options, cache, sizes.seqQ);
  const present = presentOptions({ ...given, ...positions, sizes, entries });
  return {
    batch: sizes.batch,
    seqQ: sizes.seqQ,
    seqKv: sizes.seqKv,
    mostKeys:
      cache?.place === "ring" ? Math.min(sizes.seqKv, cache.sinkTokens + cache.ring) : sizes.seqKv,
    packed,
    similarity: present.find(({ slots }) => slots?.similarity)?.slots?.similarity,
    blockMask: options.blockMask,
    options: present,
  };
}
