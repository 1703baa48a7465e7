// What few problems say beyond causality and windows: lengths of entries, caches, similarities,
// biases, masks in memory, functions, dropout. Plain attention is planned without loading this
// file.

import { check, show } from "../errors.ts";
import { AttentionFunction, checkCaptureNames } from "../functions/attention_function.ts";
import { BlockMask } from "../functions/block_mask.ts";
import { checkNames } from "../options.ts";
import { resolveMemory } from "../plan/broadcast.ts";
import { type CachedKeys, checkCached } from "./cached_keys.ts";
import type { Dropout, TakenScores } from "./options.ts";
import type { Features, TensorSizes } from "./resolved.ts";
import { sequenceTables } from "./sequences.ts";
import { resolveSimilarity } from "./similarity.ts";
import { headTables, type Sizes } from "./tables.ts";

export { capturesOf, extendedParams, extendedSlots } from "./extended_plan.ts";
export { layTables } from "./table_memory.ts";

/** What the first query stands at, and whether the last one stands at the last key. */
type Positions = Pick<Features, "alignEnd" | "offset">;

/** Checks the options that few problems have. Throws FoveaError that names the option. */
export function resolveExtended(
  label: string,
  options: TakenScores,
  { batch, heads, headDim, rowsQ, rowsKv, normRows }: TensorSizes,
  positions: Positions,
  source: CachedKeys | undefined,
) {
  const sequence = sequenceTables(
    label,
    options,
    { batch, heads, seqQ: rowsQ, seqKv: rowsKv },
    source,
  );
  const { sizes } = sequence;
  if (source) checkCached(label, options, source, sizes.seqQ);
  const scores = [sizes.batch, heads, sizes.seqQ, sizes.seqKv];
  const { similarity, tables } = resolveSimilarity(label, options, {
    heads,
    headDim,
    rows: normRows,
  });
  return {
    batch: sizes.batch,
    seqQ: sizes.seqQ,
    seqKv: sizes.seqKv,
    mostKeys:
      source?.place === "ring"
        ? Math.min(sizes.seqKv, source.sinkTokens + source.ring)
        : sizes.seqKv,
    sequence: sequence.kind,
    packed: sequence.packed,
    tables: [...sequence.tables, ...headTables(label, options, sizes), ...tables],
    similarity,
    mask:
      options.mask === undefined
        ? undefined
        : resolveMemory(`${label}: mask`, options.mask, scores, "mask"),
    bias:
      options.bias === undefined
        ? undefined
        : resolveMemory(`${label}: bias`, options.bias, scores, "bias"),
    softcap: resolveSoftcap(label, options),
    dropout: resolveDropout(label, options, heads * rowsQ * batch),
    ...resolveFunctions(label, options, positions, (source ?? sequence.kind) !== undefined, sizes),
  };
}

function resolveFunctions(
  label: string,
  options: TakenScores,
  { alignEnd, offset }: Positions,
  entriesDiffer: boolean,
  { batch, heads, seqQ, seqKv }: Sizes,
) {
  const { scoreFunction, maskFunction, blockMask } = options;
  const isFunction = (given: unknown, kind: string) =>
    given instanceof AttentionFunction && given.kind === kind;
  check(
    scoreFunction === undefined || isFunction(scoreFunction, "score"),
    "argument",
    () => `${label}: scoreFunction must come from scoreFunction(), got ${show(scoreFunction)}.`,
  );
  check(
    maskFunction === undefined || isFunction(maskFunction, "mask"),
    "argument",
    () => `${label}: maskFunction must come from maskFunction(), got ${show(maskFunction)}.`,
  );
  checkCaptureNames(label, [scoreFunction, maskFunction]);
  if (blockMask === undefined) return { scoreFunction, maskFunction, blockMask };
  check(
    blockMask instanceof BlockMask,
    "argument",
    () =>
      `${label}: blockMask must come from createBlockMask() or blockMaskOf(), got ${show(blockMask)}.`,
  );
  check(
    maskFunction === undefined,
    "argument",
    () =>
      `${label}: a block mask brings its own mask function; leave maskFunction out, or make the block mask from both with allOf().`,
  );
  const made = blockMask.options;
  const oneOr = (size: number, all: number) => size === all || size === 1;
  check(
    made.seqQ === seqQ &&
      made.seqKv === seqKv &&
      oneOr(made.batch, batch) &&
      oneOr(made.heads, heads),
    "argument",
    () =>
      `${label}: the block mask is for B = ${made.batch}, H = ${made.heads}, M = ${made.seqQ}, N = ${made.seqKv}; the problem has B = ${batch}, H = ${heads}, M = ${seqQ}, N = ${seqKv}.`,
  );
  check(
    !entriesDiffer,
    "argument",
    () =>
      `${label}: a block mask can't be combined with lengths or positions of batch entries; use its mask function.`,
  );
  const first = alignEnd ? seqKv - seqQ : offset;
  check(
    first === made.queryOffset,
    "argument",
    () =>
      `${label}: the block mask puts the first query at position ${made.queryOffset}, the problem at ${first}. Make the block mask with the same queryOffset.`,
  );
  checkCaptureNames(label, [scoreFunction, blockMask.maskFunction]);
  return { scoreFunction, maskFunction: blockMask.maskFunction, blockMask };
}

function resolveSoftcap(label: string, { softcap }: TakenScores): number | undefined {
  check(
    softcap === undefined || (Number.isFinite(Math.fround(softcap)) && softcap >= 0),
    "argument",
    () => `${label}: softcap must be a positive number of f32, or 0 for none, got ${softcap}.`,
  );
  return softcap || undefined;
}

function resolveDropout(
  label: string,
  { dropout }: TakenScores,
  rows: number,
): Dropout | undefined {
  if (dropout === undefined) return undefined;
  check(
    typeof dropout === "object" && dropout !== null,
    "argument",
    () => `${label}: dropout must be { p, seed }, got ${show(dropout)}.`,
  );
  checkNames(`${label}: dropout`, dropout, { p: "number", seed: "number" });
  const { p, seed } = dropout;
  check(
    p >= 0 && p <= 1,
    "argument",
    () => `${label}: dropout.p must be a probability from 0 to 1, got ${p}.`,
  );
  check(
    Number.isSafeInteger(seed) && seed >= 0,
    "argument",
    () => `${label}: dropout.seed must be a whole number from 0 up to 2^53, got ${seed}.`,
  );
  check(
    rows < 2 ** 32,
    "limit",
    () => `${label}: dropout numbers rows of B * H * M below 2^32; there are ${rows}.`,
  );
  return 1 - p < 1 ? dropout : undefined;
}
