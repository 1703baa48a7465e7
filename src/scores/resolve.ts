// Positions and windows of a problem: their checks, and the numbers that kernels take. extension.ts
// has all other options, and is loaded for problems that have any.

import { check, show } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import type { GivenScores } from "./descriptor.ts";
import { EXTENDED } from "./extended_options.ts";
import type { ScoreOptions, TakenScores } from "./options.ts";
import type { ResolvedOptions } from "./resolved.ts";

const CAUSAL: readonly unknown[] = [undefined, false, true, "bottom-right", "top-left"];
/** Positions, lengths and windows stay below 2^31 together. */
const FARTHEST = 2 ** 29;

/** The names of all options of scores. */
export const SCORE_OPTIONS = {
  causal: "any?",
  scale: "number",
  window: "any?",
  attentionChunk: "number?",
  sinkTokens: "number",
  maxSeqlenQ: "number",
  maxSeqlenKv: "number",
  ...EXTENDED,
} satisfies OptionNames<ScoreOptions>;

/** The module that checks the options that few problems have. */
export type Extension = typeof import("./extension.ts");

/** Loads the module that a problem's options need beyond this file; plain attention needs none. */
export async function loadExtension(problem: TakenScores): Promise<Extension | undefined> {
  const needed = "cache" in problem || Object.keys(EXTENDED).some((name) => name in problem);
  return needed ? import("./extension.ts") : undefined;
}

/** The options of a problem without any of the extended ones, resolved. */
const PLAIN = { packed: false, similarity: undefined, blockMask: undefined, options: [] };

/**
 * Checks the options of a problem. Throws FoveaError that names the option.
 *
 * @param extension What {@link loadExtension} gives for the problem
 */
export function resolveOptions(
  given: GivenScores,
  extension: Extension | undefined,
): ResolvedOptions {
  const { label, options, tensors } = given;
  const { batch, rowsQ, rowsKv } = tensors;
  const positions = resolvePositions(label, options);
  return {
    batch,
    seqQ: rowsQ,
    seqKv: rowsKv,
    totalQ: rowsQ,
    totalKv: rowsKv,
    mostKeys: rowsKv,
    ...positions,
    chunk: resolveChunk(label, options),
    sinkTokens: resolveSinkTokens(label, options),
    ...(extension?.resolveExtended(given, positions) ?? PLAIN),
  };
}

/**
 * The factor of the scores if the caller gives none. Normalised rows and bounded terms need no
 * factor.
 */
export function defaultScale(similarity: ResolvedOptions["similarity"], headDim: number): number {
  const isUnscaled = similarity && !(similarity.kind === "normalized" && similarity.rms);
  return isUnscaled ? 1 : 1 / Math.sqrt(headDim);
}

/** Whether scores are products with a scale and temperature, and masked by positions only. */
export const hasPlainScores = ({ options }: Pick<ResolvedOptions, "options">): boolean =>
  options.every(({ keeps }) => keeps !== "nothing");

function resolvePositions(label: string, { causal, queryOffset, window = [-1, -1] }: TakenScores) {
  check(
    CAUSAL.includes(causal),
    "argument",
    () => `${label}: causal must be a boolean, "bottom-right" or "top-left", got ${show(causal)}.`,
  );
  check(
    queryOffset === undefined || typeof causal !== "string",
    "argument",
    () =>
      `${label}: queryOffset replaces the alignment "${causal}"; give causal: true with it, or leave it out.`,
  );
  check(
    Array.isArray(window) &&
      window.length === 2 &&
      window.every((keys) => Number.isInteger(keys) && keys >= -1),
    "argument",
    () =>
      `${label}: window must be two whole numbers [left, right], keys before and after a query's own or -1 for no bound, got ${show(window)}.`,
  );
  const [left, right] = window.map((keys) => Math.min(keys, FARTHEST));
  const offset = typeof queryOffset === "number" ? queryOffset : 0;
  return {
    window: [left, causal ? 0 : right] as const,
    alignEnd: queryOffset === undefined && causal !== "top-left",
    offset: Math.min(Math.max(offset, -FARTHEST), FARTHEST),
  };
}

function resolveChunk(label: string, { attentionChunk }: TakenScores): number {
  if (attentionChunk === undefined) return 0;
  check(
    Number.isInteger(attentionChunk) && attentionChunk >= 1,
    "argument",
    () =>
      `${label}: attentionChunk must be a whole number of positions from 1 up, got ${attentionChunk}.`,
  );
  return Math.min(attentionChunk, FARTHEST);
}

function resolveSinkTokens(label: string, { sinkTokens = 0 }: TakenScores): number {
  check(
    Number.isInteger(sinkTokens) && sinkTokens >= 0,
    "argument",
    () => `${label}: sinkTokens must be a whole number of keys from 0 up, got ${sinkTokens}.`,
  );
  return Math.min(sinkTokens, FARTHEST);
}
