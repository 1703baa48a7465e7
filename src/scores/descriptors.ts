// The descriptors of all options that few problems have. Whatever has to know of every option asks
// them.

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

/**
 * A descriptor for each option, or the name of the option whose descriptor speaks for it. Options
 * are checked in this order, and their tables lie in it.
 */
const DESCRIPTORS = {
  qLengths: ENTRIES,
  kvLengths: "qLengths",
  queryOffset: "qLengths",
  cuSeqlensQ: "qLengths",
  cuSeqlensKv: "qLengths",
  alibiSlopes: ALIBI_SLOPES,
  sinks: SINKS,
  relativeBias: RELATIVE_BIAS,
  temperature: TEMPERATURE,
  logTemperature: "temperature",
  maxTemperature: "temperature",
  similarity: SIMILARITY,
  mask: MASK,
  bias: BIAS,
  softcap: SOFTCAP,
  dropout: DROPOUT,
  scoreFunction: SCORE_FUNCTION,
  maskFunction: MASK_FUNCTION,
  blockMask: BLOCK_MASK,
} satisfies Readonly<Record<ExtendedOption, Descriptor | ExtendedOption>>;

/** The options that a problem has. Throws FoveaError that names the first that is wrong. */
export function presentOptions(problem: DescribedProblem): PresentOption[] {
  return Object.entries<Descriptor | ExtendedOption>(DESCRIPTORS).flatMap(([name, describe]) => {
    const parts = typeof describe === "string" ? undefined : describe(problem);
    return parts ? [{ name, ...parts }] : [];
  });
}
