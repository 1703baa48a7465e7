// Positions, masks and scores of a problem: checked, and as numbers that the kernels take.

import { check } from "../errors.ts";
import { BlockMask } from "./block_mask.ts";
import { resolveMemory } from "./broadcast.ts";
import { checkCached } from "./cached.ts";
import { AttentionFunction, type MaskFunction, type ScoreFunction } from "./functions.ts";
import type { KvSource } from "./kv_source.ts";
import type { Dropout, ScoreOptions } from "./options.ts";
import { sequenceTables } from "./sequences.ts";
import { type ResolvedSimilarity, resolveSimilarity } from "./similarity.ts";
import type { ResolvedSpec } from "./specs.ts";
import { headTables, type Sizes, type Table } from "./tables.ts";

/** Everything that a problem says beside its tensors, shapes and scale. */
export interface Features {
  /** Batch entries: the batch axis, or the number of sequences that lie one after the other. */
  readonly batch: number;
  /** Rows of the longest entry. */
  readonly seqQ: number;
  readonly seqKv: number;
  /** The most keys that a query may have to look at. */
  readonly mostKeys: number;
  /** Rows of the tensors. */
  readonly totalQ: number;
  readonly totalKv: number;
  /** Where entries have lengths or positions of their own; `"packed"`: where they lie one after the other. */
  readonly sequence: "batch" | "packed" | undefined;
  /** Queries of entries lie one after the other. */
  readonly packed: boolean;
  /** The last query stands at the last key; otherwise the first one at `offset`, or where a table says. */
  readonly alignEnd: boolean;
  readonly offset: number;
  /** Keys before and after its own that a query sees; -1 for all. Causal is 0 after. */
  readonly window: readonly [left: number, right: number];
  /** Keys of a chunk; 0 for none. */
  readonly chunk: number;
  /** First keys that window and chunk do not hide. */
  readonly sinkTokens: number;
  readonly mask: ResolvedSpec | undefined;
  readonly bias: ResolvedSpec | undefined;
  readonly similarity: ResolvedSimilarity;
  readonly softcap: number | undefined;
  readonly dropout: Dropout | undefined;
  readonly scoreFunction: ScoreFunction | undefined;
  readonly maskFunction: MaskFunction | undefined;
  readonly blockMask: BlockMask | undefined;
  /** Small tables, by the member of the params that says where each lies. */
  readonly tables: readonly Table[];
}

/** Sizes of q and k. */
interface TensorSizes {
  readonly batch: number;
  readonly heads: number;
  readonly headDim: number;
  readonly rowsQ: number;
  readonly rowsKv: number;
  /** Rows of all heads and entries of q, and those of k, wherever they lie. */
  readonly normRows: { readonly q: number; readonly k: number };
}

const CAUSAL: readonly unknown[] = [undefined, false, true, "bottom-right", "top-left"];
/** Positions, lengths and windows stay below 2^31 together. */
const FARTHEST = 2 ** 29;

/** Checks what a problem says beside its shapes. Throws FoveaError("argument") that names the option. */
export function resolveFeatures(
  label: string,
  options: ScoreOptions,
  { batch, heads, headDim, rowsQ, rowsKv, normRows }: TensorSizes,
  source?: KvSource,
): Features {
  const positions = resolvePositions(label, options);
  const sequence = sequenceTables(label, options, { batch, heads, seqQ: rowsQ, seqKv: rowsKv }, source);
  const { sizes } = sequence;
  if (source) checkCached(label, options, source, sizes.seqQ);
  const scores = [sizes.batch, heads, sizes.seqQ, sizes.seqKv];
  const { similarity, tables } = resolveSimilarity(label, options, { heads, headDim, rows: normRows });
  return {
    ...{ batch: sizes.batch, seqQ: sizes.seqQ, seqKv: sizes.seqKv, totalQ: rowsQ, totalKv: rowsKv },
    mostKeys: source?.place === "ring" ? Math.min(sizes.seqKv, source.sinkTokens + source.ring) : sizes.seqKv,
    ...positions,
    ...{ sequence: sequence.kind, packed: sequence.packed },
    tables: [...sequence.tables, ...headTables(label, options, sizes), ...tables],
    similarity,
    chunk: resolveChunk(label, options),
    sinkTokens: resolveSinkTokens(label, options),
    mask: options.mask === undefined ? undefined : resolveMemory(`${label}: mask`, options.mask, scores, "mask"),
    bias: options.bias === undefined ? undefined : resolveMemory(`${label}: bias`, options.bias, scores, "bias"),
    softcap: resolveSoftcap(label, options),
    dropout: resolveDropout(label, options, heads * rowsQ * batch),
    ...resolveFunctions(label, options, positions, (source ?? sequence.kind) !== undefined, sizes),
  };
}

function resolvePositions(label: string, { causal, queryOffset, window = [-1, -1] }: ScoreOptions) {
  check(
    CAUSAL.includes(causal),
    "argument",
    () => `${label}: causal must be a boolean, "bottom-right" or "top-left", got ${JSON.stringify(causal)}.`,
  );
  check(
    queryOffset === undefined || typeof causal !== "string",
    "argument",
    () => `${label}: queryOffset replaces the alignment "${causal}"; give causal: true with it, or leave it out.`,
  );
  check(
    Array.isArray(window) && window.length === 2 && window.every((keys) => Number.isInteger(keys) && keys >= -1),
    "argument",
    () =>
      `${label}: window must be two whole numbers [left, right], keys before and after a query's own or -1 for no bound, got ${JSON.stringify(window)}.`,
  );
  const [left, right] = window.map((keys) => Math.min(keys, FARTHEST));
  const offset = typeof queryOffset === "number" ? queryOffset : 0;
  return {
    window: [left, causal ? 0 : right] as const,
    alignEnd: queryOffset === undefined && causal !== "top-left",
    offset: Math.min(Math.max(offset, -FARTHEST), FARTHEST),
  };
}

function resolveChunk(label: string, { attentionChunk }: ScoreOptions): number {
  if (attentionChunk === undefined) return 0;
  check(
    Number.isInteger(attentionChunk) && attentionChunk >= 1,
    "argument",
    () => `${label}: attentionChunk must be a whole number of positions from 1 up, got ${attentionChunk}.`,
  );
  return Math.min(attentionChunk, FARTHEST);
}

function resolveSinkTokens(label: string, { sinkTokens = 0 }: ScoreOptions): number {
  check(
    Number.isInteger(sinkTokens) && sinkTokens >= 0,
    "argument",
    () => `${label}: sinkTokens must be a whole number of keys from 0 up, got ${sinkTokens}.`,
  );
  return Math.min(sinkTokens, FARTHEST);
}

function resolveFunctions(
  label: string,
  options: ScoreOptions,
  { alignEnd, offset }: { alignEnd: boolean; offset: number },
  entriesDiffer: boolean,
  { batch, heads, seqQ, seqKv }: Sizes,
) {
  const { scoreFunction, maskFunction, blockMask } = options;
  const isFunction = (given: unknown, kind: string) => given instanceof AttentionFunction && given.kind === kind;
  check(
    scoreFunction === undefined || isFunction(scoreFunction, "score"),
    "argument",
    () => `${label}: scoreFunction must come from scoreFunction(), got ${scoreFunction}.`,
  );
  check(
    maskFunction === undefined || isFunction(maskFunction, "mask"),
    "argument",
    () => `${label}: maskFunction must come from maskFunction(), got ${maskFunction}.`,
  );
  if (blockMask === undefined) return { scoreFunction, maskFunction, blockMask };
  check(
    blockMask instanceof BlockMask,
    "argument",
    () => `${label}: blockMask must come from createBlockMask() or blockMaskOf(), got ${blockMask}.`,
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
    made.seqQ === seqQ && made.seqKv === seqKv && oneOr(made.batch, batch) && oneOr(made.heads, heads),
    "argument",
    () =>
      `${label}: the block mask is for B = ${made.batch}, H = ${made.heads}, M = ${made.seqQ}, N = ${made.seqKv}; the problem has B = ${batch}, H = ${heads}, M = ${seqQ}, N = ${seqKv}.`,
  );
  check(
    !entriesDiffer,
    "argument",
    () => `${label}: a block mask can't be combined with lengths or positions of batch entries; use its mask function.`,
  );
  const first = alignEnd ? seqKv - seqQ : offset;
  check(
    first === made.queryOffset,
    "argument",
    () =>
      `${label}: the block mask puts the first query at position ${made.queryOffset}, the problem at ${first}. Make the block mask with the same queryOffset.`,
  );
  return { scoreFunction, maskFunction: blockMask.maskFunction, blockMask };
}

function resolveSoftcap(label: string, { softcap }: ScoreOptions): number | undefined {
  check(
    softcap === undefined || (Number.isFinite(softcap) && softcap > 0),
    "argument",
    () => `${label}: softcap must be a positive number, got ${softcap}. Leave it out for none.`,
  );
  return softcap;
}

function resolveDropout(label: string, { dropout }: ScoreOptions, rows: number): Dropout | undefined {
  if (dropout === undefined) return undefined;
  check(
    typeof dropout === "object" && dropout !== null,
    "argument",
    () => `${label}: dropout must be { p, seed }, got ${dropout}.`,
  );
  const { p, seed } = dropout;
  check(p >= 0 && p <= 1, "argument", () => `${label}: dropout.p must be a probability from 0 to 1, got ${p}.`);
  check(
    Number.isSafeInteger(seed) && seed >= 0,
    "argument",
    () => `${label}: dropout.seed must be a whole number from 0 up to 2^53, got ${seed}.`,
  );
  check(rows < 2 ** 32, "limit", () => `${label}: dropout numbers rows of B * H * M below 2^32; there are ${rows}.`);
  return 1 - p < 1 ? dropout : undefined;
}
