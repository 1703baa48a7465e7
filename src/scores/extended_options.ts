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

/** An option before its descriptor is loaded. */
interface Declared<Kind> {
  /** What a value has to be, as the type of the option says. */
  readonly kind: Kind;
  /**
   * The option's members of the uniform that all kernels name, behind constants, with their values
   * for problems without the option. Members that only a module of the option names are not among
   * them.
   */
  readonly rest?: Partial<Params>;
}

/** Stands in place of a table's offset if there is no table. Kernels test for it. */
const NONE = 0xffffffff;

/** All options that few problems have. Messages list them in this order. */
export const EXTENDED = {
  queryOffset: { kind: "any" },
  kvLengths: { kind: "any" },
  /** The descriptor of `qLengths` speaks for all lengths and positions of entries. */
  qLengths: {
    kind: "any",
    rest: {
      q_lengths_at: NONE,
      kv_lengths_at: NONE,
      q_offsets_at: NONE,
      cu_q_at: NONE,
      cu_kv_at: NONE,
    },
  },
  cuSeqlensQ: { kind: "any" },
  cuSeqlensKv: { kind: "any" },
  similarity: { kind: "any" },
  /** The descriptor of `temperature` speaks for the logarithm and its bound, too. */
  temperature: { kind: "any", rest: { temperature_at: 0, max_temperature: 0 } },
  logTemperature: { kind: "any" },
  maxTemperature: { kind: "number" },
  softcap: { kind: "number?", rest: { softcap: 0 } },
  mask: { kind: "any" },
  bias: { kind: "any" },
  scoreFunction: { kind: "any" },
  maskFunction: { kind: "any" },
  blockMask: { kind: "any" },
  alibiSlopes: { kind: "any", rest: { slopes_at: 0, slopes_stride_b: 0 } },
  relativeBias: {
    kind: "any",
    rest: { relative_reach: 0, relative_buckets_at: 0, relative_values_at: 0 },
  },
  sinks: { kind: "any", rest: { sinks_at: 0 } },
  dropout: { kind: "any" },
} as const satisfies {
  readonly [Name in ExtendedOption]: Declared<OptionNames<ScoreOptions>[Name]>;
};

/** What the uniform holds for the options that a problem does not have. */
export function paramsAtRest(present: readonly { readonly name: string }[]): Partial<Params> {
  const absent = Object.entries<Declared<string>>(EXTENDED).filter(
    ([name]) => !present.some((option) => option.name === name),
  );
  return Object.assign({}, ...absent.map(([, { rest }]) => rest));
}
