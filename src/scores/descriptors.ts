// The descriptors of all options that few problems have. Code that depends on every option asks the
// descriptors.

import type { DescribedProblem, Descriptor, PresentOption } from "./descriptor.ts";
import { DROPOUT } from "./dropout.ts";
import type { ExtendedOption } from "./extended_options.ts";
import { BLOCK_MASK, MASK_FUNCTION, SCORE_FUNCTION } from "./functions.ts";
import { ALIBI_SLOPES, SINKS } from "./head_tables.ts";
import { BIAS, MASK } from "./over_scores.ts";
import { RELATIVE_BIAS } from "./relative_bias.ts";
import { ENTRIES } from "./sequences.ts";
import { SIMILARITY } from "./similarity.ts";
import { SOFTCAP } from "./softcap.ts";
import { TEMPERATURE } from "./temperature.ts";

/** Options that the descriptor of another option speaks for. */
export type SpokenFor =
  | "kvLengths" // of qLengths, as the next three
  | "queryOffset"
  | "cuSeqlensQ"
  | "cuSeqlensKv"
  | "logTemperature" // of temperature
  | "maxTemperature";

/**
 * The descriptor of every other option. Options are checked in this order, and their tables lie in
 * it. Names of problems, which applications keep with what tuning found, follow it: add at the end.
 */
const DESCRIPTORS = {
  qLengths: ENTRIES,
  alibiSlopes: ALIBI_SLOPES,
  sinks: SINKS,
  relativeBias: RELATIVE_BIAS,
  temperature: TEMPERATURE,
  similarity: SIMILARITY,
  mask: MASK,
  bias: BIAS,
  softcap: SOFTCAP,
  dropout: DROPOUT,
  scoreFunction: SCORE_FUNCTION,
  maskFunction: MASK_FUNCTION,
  blockMask: BLOCK_MASK,
} satisfies Readonly<Record<Exclude<ExtendedOption, SpokenFor>, Descriptor>>;

/** The options that a problem has. Throws FoveaError that names the first that is wrong. */
export function presentOptions(problem: DescribedProblem): PresentOption[] {
  return Object.entries<Descriptor>(DESCRIPTORS).flatMap(([name, describe]) => {
    const parts = describe(problem);
    return parts ? [{ name, ...parts }] : [];
  });
}
