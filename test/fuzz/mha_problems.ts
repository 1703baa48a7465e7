// Random problems of multi-head attention over the whole feature space, valid by construction.

import fc from "fast-check";
import { defined } from "../support/features.ts";
import type { MultiHeadCase } from "../support/multi_head.ts";
import { extremesOf, maybe, perEntry, size } from "./draws.ts";

/**
 * What the texts of kernels depend on. Everything else of a problem is free, and compiles nothing.
 */
interface MhaSet
  extends Pick<
    MultiHeadCase,
    | "D"
    | "Dv"
    | "dtype"
    | "storage"
    | "columns"
    | "learnedKey"
    | "zeroAttention"
    | "sinks"
    | "weights"
  > {
  readonly lengths: boolean;
  readonly masks: "none" | "keep" | "ignore" | "both";
  readonly biased: boolean;
  readonly projected: boolean;
  readonly softcap: boolean;
  readonly bias: boolean;
  readonly dropout: boolean;
  /** Whether widths are not multiples of 4. */
  readonly odd: boolean;
}

/** About how many multiply-adds a problem may take before batch entries and heads are cut. */
const MOST_WORK = 4e6;

const float = fc.constantFrom("f16" as const, "bf16" as const);
const flag = (percent: number) => maybe(fc.constant(true as const), percent);
const often = (percent: number) => fc.integer({ min: 0, max: 99 }).map((drawn) => drawn < percent);

const mhaSet: fc.Arbitrary<MhaSet> = fc.record({
  D: fc.constantFrom(8, 8, 16, 4, 6),
  Dv: maybe(fc.constantFrom(8, 12, 10), 30),
  dtype: maybe(float, 20),
  storage: maybe(float, 20),
  columns: flag(30),
  learnedKey: flag(30),
  zeroAttention: flag(30),
  sinks: flag(15),
  weights: maybe(fc.constantFrom("perHead" as const, "mean" as const), 35),
  masks: fc.constantFrom("none" as const, "keep" as const, "ignore" as const, "both" as const),
  lengths: often(30),
  biased: often(80),
  projected: often(85),
  odd: often(10),
  softcap: often(15),
  bias: often(15),
  dropout: often(15),
}) as fc.Arbitrary<MhaSet>;

/** Draws the feature sets of a run: few, because each is several kernels to compile. */
export const mhaSets = (seed: number, count: number): MhaSet[] =>
  fc.sample(mhaSet, { seed, numRuns: count });

const width = fc.integer({ min: 1, max: 12 });
const axes = fc.subarray([..."BHMN"]).map((chosen) => chosen.join(""));
const reach = fc.constantFrom(-1, 0, 1, 5, 40);

/**
 * Hostile values of what goes into the projections (queries, keys, values), and of the layer's
 * sinks.
 */
const MHA_EXTREMES = [
  "nanQ",
  "nanK",
  "nanV",
  "tinyQ",
  "tinyK",
  "tinyV",
  "constant",
  "equalKeys",
  "farSinks",
] as const;

const draws = fc.record({
  N: size(150),
  M: size(100),
  B: fc.integer({ min: 1, max: 3 }),
  kvHeads: fc.integer({ min: 1, max: 2 }),
  groups: fc.constantFrom(1, 1, 2, 3),
  E: width,
  Ek: width,
  Ev: width,
  Eo: width,
  cross: fc.constantFrom("self", "keys", "values"),
  causal: fc.constantFrom(undefined, undefined, true, "top-left" as const),
  window: maybe(fc.tuple(reach, reach), 25),
  scale: maybe(fc.constantFrom(0, 0.5, 1), 20),
  queries: perEntry(size(100)),
  keys: perEntry(size(150)),
  axes,
  biasAxes: axes,
  bits: fc.boolean(),
  keyBits: fc.boolean(),
  onGpu: flag(30),
  p: fc.constantFrom(0.1, 0.5, 0.9),
  extremes: extremesOf(MHA_EXTREMES),
  seed: fc.integer({ min: 1, max: 2 ** 20 }),
});
type Draws = typeof draws extends fc.Arbitrary<infer T> ? T : never;

export const mhaProblemsOf = (set: MhaSet): fc.Arbitrary<MultiHeadCase> =>
  draws.map((drawn) => problemOf(set, drawn));

function problemOf(set: MhaSet, drawn: Draws): MultiHeadCase {
  const { D, Dv, dtype, storage, columns, learnedKey, zeroAttention, sinks, weights, masks } = set;
  const isSelf = drawn.cross === "self";
  const M = Math.abs(drawn.M);
  const N = isSelf ? M : Math.abs(drawn.N);
  const wide = (units: number) => 4 * units + (set.odd ? 1 : 0);
  const E = wide(drawn.E);
  const work = (B: number, H: number) => B * H * (M * N * 2 * (Dv ?? D) + (M + N) * 48 * D);
  let B = drawn.B;
  let kvHeads = drawn.kvHeads;
  let groups = drawn.groups;
  while (work(B, kvHeads * groups) > MOST_WORK && B * kvHeads * groups > 1) {
    if (groups > 1) groups = 1;
    else if (B > 1) B--;
    else kvHeads = 1;
  }
  const lengths = (values: readonly number[], most: number) =>
    values.slice(0, B).map((length) => Math.min(Math.abs(length), most));
  const hasScores = masks !== "none" && (masks === "both" || !drawn.keyBits);
  const { softcap, bias, dropout } = set;
  const extremes = drawn.extremes?.filter((kind) => kind !== "farSinks" || sinks);
  return defined<MultiHeadCase>({
    B,
    H: kvHeads * groups,
    Hkv: kvHeads,
    M,
    D,
    Dv,
    E,
    ...(!isSelf && { N, Ek: wide(drawn.Ek) }),
    ...(drawn.cross === "values" && { Ev: wide(drawn.Ev) }),
    Eo: set.projected ? wide(drawn.Eo) : 0,
    dtype,
    storage,
    columns,
    learnedKey,
    zeroAttention,
    sinks,
    weights,
    onGpu: drawn.onGpu,
    biases: set.biased ? undefined : "",
    causal: drawn.causal,
    window: drawn.window,
    scale: drawn.scale,
    seed: drawn.seed,
    ...(set.lengths && { qLengths: lengths(drawn.queries, M), kvLengths: lengths(drawn.keys, N) }),
    ...(hasScores && { mask: { axes: drawn.axes, bits: drawn.bits && drawn.axes.includes("N") } }),
    ...(hasScores && masks !== "keep" && { ignores: masks === "ignore" || drawn.bits }),
    ...((masks === "both" || (masks !== "none" && !hasScores)) && {
      keys: { means: masks === "keep" || drawn.onGpu ? "keep" : "ignore", bits: drawn.keyBits },
    }),
    extremes: extremes?.length ? extremes : undefined,
    softcap: softcap ? 2 : undefined,
    bias: bias ? { axes: drawn.biasAxes } : undefined,
    dropout: dropout ? { p: drawn.p, seed: drawn.seed } : undefined,
  }) as MultiHeadCase;
}
