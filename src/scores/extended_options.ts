// The options of scores that few problems have: how each is read, and what kernels find in the
// uniform without it. What an option does is in descriptors.ts, which is loaded for problems that have any of them.

import type { OptionNames } from "../given.ts";
import type { Params } from "../kernels/params.ts";
import type { ScoreOptions } from "./options.ts";

/** Options that every problem may have: features.ts checks them itself. */
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
   * The members of the uniform that are its own and stand in the code of all kernels, behind
   * constants, as a problem without the option has them. Those that come with a module of the
   * option are not among them.
   */
  readonly rest?: Partial<Params>;
}

/** In place of where a table lies: there is none. Kernels ask for it. */
const NONE = 0xffffffff;

/** All of them. Messages list the options in this order. */
export const EXTENDED = {
  queryOffset: { kind: "any" },
  kvLengths: { kind: "any" },
  /** Its descriptor speaks for all lengths and positions of entries. */
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
  /** Its descriptor speaks for the logarithm and its bound, too. */
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
