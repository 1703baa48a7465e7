// The options of scores that few problems have: how each is read, and what kernels find in the
// uniform if it is absent. descriptors.ts has their meaning; it is loaded for problems that have
// any of them.

import type { OptionNames } from "../given.ts";
import type { Params } from "../kernels/params.ts";
import type { ScoreOptions } from "./options.ts";

/** Options that every problem may have: resolve.ts checks them itself. */
export type PlainOption =
  | "causal"
  | "scale"
  | "window"
  | "attentionChunk"
  | "sinkTokens"
  | "maxSeqlenQ"
  | "maxSeqlenKv";

/** The name of an option that few problems have. */
export type ExtendedOption = Exclude<keyof ScoreOptions, PlainOption>;

/** Stands in place of a table's offset if there is no table. Kernels test for it. */
const NONE = 0xffffffff;

/**
 * The kinds of all options that few problems have, as their types say them. Messages list the names
 * in this order.
 */
export const EXTENDED = {
  queryOffset: "any",
  kvLengths: "any",
  qLengths: "any",
  cuSeqlensQ: "any",
  cuSeqlensKv: "any",
  similarity: "any",
  temperature: "any",
  logTemperature: "any",
  maxTemperature: "number",
  softcap: "number?",
  mask: "any",
  bias: "any",
  scoreFunction: "any",
  maskFunction: "any",
  blockMask: "any",
  alibiSlopes: "any",
  relativeBias: "any",
  sinks: "any",
  dropout: "any",
} as const satisfies Pick<OptionNames<ScoreOptions>, ExtendedOption>;

/**
 * The options' members of the uniform that all kernels name, behind constants, with their values
 * for problems without the option. Members that only a module of the option names are not among
 * them.
 */
export const REST = {
  /** The descriptor of `qLengths` speaks for all lengths and positions of entries. */
  qLengths: {
    q_lengths_at: NONE,
    kv_lengths_at: NONE,
    q_offsets_at: NONE,
    cu_q_at: NONE,
    cu_kv_at: NONE,
  },
  /** The descriptor of `temperature` speaks for the logarithm and its bound, too. */
  temperature: { temperature_at: 0, max_temperature: 0 },
  softcap: { softcap: 0 },
  alibiSlopes: { slopes_at: 0, slopes_stride_b: 0 },
  relativeBias: { relative_reach: 0, relative_buckets_at: 0, relative_values_at: 0 },
  sinks: { sinks_at: 0 },
} as const satisfies { readonly [Name in ExtendedOption]?: Partial<Params> };

/** What the uniform holds for the options that a problem does not have. */
export function paramsAtRest(present: readonly { readonly name: string }[]): Partial<Params> {
  const absent = Object.entries(REST).filter(
    ([name]) => !present.some((option) => option.name === name),
  );
  return Object.assign({}, ...absent.map(([, rest]) => rest));
}
