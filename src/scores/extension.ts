// The options that few problems have, beyond causality and windows. Plain attention is planned
// without loading this file, and the descriptors of those options with it.

import { type CachedKeys, checkCached } from "./cached_keys.ts";
import type { TensorSizes } from "./descriptor.ts";
import { presentOptions } from "./descriptors.ts";
import type { TakenScores } from "./options.ts";
import type { Features } from "./resolved.ts";
import { resolveEntries } from "./sequences.ts";

export { capturesOf } from "./functions.ts";
export { layTables } from "./table_memory.ts";

/** Checks the options that few problems have. Throws FoveaError that names the option. */
export function resolveExtended(
  label: string,
  options: TakenScores,
  tensors: TensorSizes,
  { alignEnd, offset }: Pick<Features, "alignEnd" | "offset">,
  source: CachedKeys | undefined,
) {
  const { batch, heads, rowsQ, rowsKv } = tensors;
  const sizesOfTensors = { batch, heads, seqQ: rowsQ, seqKv: rowsKv };
  const entries = resolveEntries(label, options, sizesOfTensors, source);
  const { sizes, packed } = entries;
  if (source) checkCached(label, options, source, sizes.seqQ);
  const present = presentOptions({
    label,
    options,
    tensors,
    sizes,
    entries,
    cached: source !== undefined,
    offset,
    alignEnd,
  });
  return {
    batch: sizes.batch,
    seqQ: sizes.seqQ,
    seqKv: sizes.seqKv,
    mostKeys:
      source?.place === "ring"
        ? Math.min(sizes.seqKv, source.sinkTokens + source.ring)
        : sizes.seqKv,
    packed,
    similarity: present.find(({ slots }) => slots?.similarity)?.slots?.similarity,
    blockMask: options.blockMask,
    options: present,
  };
}
