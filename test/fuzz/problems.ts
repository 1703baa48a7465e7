// Random attention problems over the whole feature space, valid by construction.

import fc from "fast-check";
import type { Case } from "../support/cases.ts";
import { type Axes, defined } from "../support/features.ts";
import { MASK_FUNCTIONS, SCORE_FUNCTIONS } from "../support/functions.ts";

/** What the text of a kernel depends on. Everything else of a problem is free, and compiles nothing. */
export interface FeatureSet extends Pick<Case, "variant" | "D" | "Dv" | "dtype" | "rowMax" | "sinks"> {
  /** Lengths and positions: the same for all entries, their own, or those of entries one after the other. */
  readonly entries: "alike" | "own" | "packed";
  readonly mask: "bytes" | "bits" | undefined;
  readonly bias: true | undefined;
  readonly softcap: true | undefined;
  readonly alibi: true | undefined;
  readonly relativeBias: true | undefined;
  /** With p = 0 the kernel has no dropout. */
  readonly dropout: "some" | "none" | undefined;
  readonly scoreFunction: Case["scoreFunction"] | undefined;
  readonly maskFunction: Case["maskFunction"] | undefined;
  readonly blockMask: true | undefined;
}

const HEAD_DIMS = [8, 16, 32, 40, 64, 1, 5];
/** Entries that packed sequences have at most; batches have fewer. */
const MOST_ENTRIES = 5;
/** Multiply-adds, about, after which heads and batch entries are cut: a software adapter does 2e8 in a second. */
const MOST_WORK = 3e7;

export type Weighted<T> = readonly (readonly [weight: number, arbitrary: fc.Arbitrary<T>])[];
export const weighted = <T>(choices: Weighted<T>): fc.Arbitrary<T> =>
  fc.oneof(...choices.map(([weight, arbitrary]) => ({ weight, arbitrary })));
export const maybe = <T>(arbitrary: fc.Arbitrary<T>, percent = 20): fc.Arbitrary<T | undefined> =>
  weighted<T | undefined>([
    [100 - percent, fc.constant(undefined)],
    [percent, arbitrary],
  ]);
const keysOf = <T extends object>(object: T) => Object.keys(object) as (keyof T)[];

const headDim = weighted([
  [14, fc.constantFrom(...HEAD_DIMS)],
  [1, fc.constant(128)],
]);
const float = fc.constantFrom("f32" as const, "f16" as const, "bf16" as const);
const flag = maybe(fc.constant(true as const));

const featureSet: fc.Arbitrary<FeatureSet> = fc
  .record({
    variant: weighted([
      [7, fc.constant("8x32")], // compiles fastest
      [3, fc.constant("32x32")],
      [2, fc.constantFrom(undefined, "64x32", "64x32-resident")],
    ]),
    D: headDim,
    Dv: maybe(headDim, 40),
    dtype: maybe(fc.oneof(fc.constantFrom("f16" as const, "bf16" as const), fc.tuple(float, float, float, float)), 30),
    entries: fc.constantFrom("alike" as const, "own" as const, "packed" as const),
    ...{ rowMax: flag, sinks: flag, bias: flag, softcap: flag, alibi: flag, relativeBias: flag },
    mask: maybe(fc.constantFrom("bytes" as const, "bits" as const)),
    dropout: maybe(fc.constantFrom("some" as const, "some" as const, "none" as const)),
    scoreFunction: maybe(fc.constantFrom(...keysOf(SCORE_FUNCTIONS))),
    maskFunction: maybe(fc.constantFrom(...keysOf(MASK_FUNCTIONS)), 30),
    blockMask: maybe(fc.constant(true as const), 60),
  })
  .map(({ variant, ...set }) => ({
    ...set,
    variant: variant === "64x32-resident" && set.D > 64 ? "64x32" : variant,
    // A block mask is for one position of the queries, and needs a function.
    blockMask: set.entries === "alike" && set.maskFunction ? set.blockMask : undefined,
  })) as fc.Arbitrary<FeatureSet>;

/** The feature sets of a run: few, because each is a kernel to compile. */
export const featureSets = (seed: number, count: number): FeatureSet[] =>
  fc.sample(featureSet, { seed, numRuns: count });

/** Whole numbers that are drawn from `draws` and shrink to 0 one by one. */
export class WholeNumber extends fc.Arbitrary<number> {
  readonly #draws: fc.Arbitrary<number>;
  readonly #shrinks: fc.Arbitrary<number>;

  constructor(draws: fc.Arbitrary<number>, most: number) {
    super();
    this.#draws = draws;
    this.#shrinks = fc.integer({ min: -most, max: most });
  }
  override generate(random: fc.Random, bias: number | undefined): fc.Value<number> {
    return new fc.Value(this.#draws.generate(random, bias).value, undefined);
  }
  override canShrinkWithoutContext(value: unknown): value is number {
    return this.#shrinks.canShrinkWithoutContext(value);
  }
  override shrink(value: number, context: unknown): fc.Stream<fc.Value<number>> {
    return this.#shrinks.shrink(value, context);
  }
}

// Around the tiles, 32 and 64 rows and 32 keys, and numbers that divide nothing.
const EDGES = [0, 1, 2, 7, 13, 31, 32, 33, 63, 64, 65, 95, 96, 97, 127, 128, 129, 191, 257];
const size = (most: number) => {
  const draws: Weighted<number> = [
    [8, fc.constantFrom(...EDGES.filter((edge) => edge <= most))],
    [4, fc.integer({ min: 1, max: Math.min(most, 100) })],
    [2, fc.integer({ min: 1, max: Math.min(most, 300) })],
    [1, fc.integer({ min: Math.min(most, 300), max: most })],
  ];
  return new WholeNumber(weighted(most > 300 ? draws : draws.slice(0, 3)), most);
};
const perEntry = <T>(arbitrary: fc.Arbitrary<T>) =>
  fc.array(arbitrary, { minLength: MOST_ENTRIES, maxLength: MOST_ENTRIES });
const axes: fc.Arbitrary<Axes> = fc.subarray([..."BHMN"]).map((chosen) => chosen.join(""));
const offset = new WholeNumber(
  weighted([
    [4, fc.integer({ min: -320, max: 320 })],
    [4, fc.integer({ min: -40, max: 40 })],
    [1, fc.constantFrom(-100_000, 100_000)],
  ]),
  100_000,
);
const share = fc.constantFrom(0.7, 0.5, 0.9, 0.1, 0, 1);
/** Keys that a window reaches to one side. */
const reach = fc.oneof(fc.constantFrom(-1, 0, 1), fc.integer({ min: 0, max: 100 }));

/** What is drawn for every problem, whether its feature set uses it or not, so that a shrunk one keeps the rest. */
const draws = fc.record({
  sizes: fc.record({
    N: size(700),
    M: size(300),
    B: fc.integer({ min: 1, max: 3 }),
    entries: fc.integer({ min: 1, max: MOST_ENTRIES }),
    kvHeads: fc.integer({ min: 1, max: 3 }),
    groups: fc.constantFrom(1, 1, 2, 3, 4, 7),
    queries: perEntry(size(150)),
    keys: perEntry(size(150)),
  }),
  lengths: fc.record({ kv: perEntry(size(300)), q: perEntry(size(300)) }),
  /** Which of lengths of keys, lengths of queries and positions entries have of their own, as bits. */
  own: fc.integer({ min: 1, max: 7 }),
  offsets: perEntry(offset),
  offset: maybe(offset),
  causal: maybe(fc.constantFrom<NonNullable<Case["causal"]>[]>(true, "bottom-right", "top-left", false), 60),
  window: maybe(fc.tuple(reach, reach)),
  sinkTokens: maybe(fc.oneof(fc.constantFrom(1, 4, 32), fc.integer({ min: 0, max: 200 }))),
  attentionChunk: maybe(fc.oneof(fc.constantFrom(1, 2, 31, 32, 33, 64), fc.integer({ min: 1, max: 400 }))),
  layout: maybe(fc.constant("bmhd" as const), 40),
  ...{ onGpu: maybe(fc.constant(true), 30), poison: maybe(fc.constant(true), 50) },
  scale: maybe(fc.constantFrom(1, 0.1, -0.5, 0, 3)),
  spread: maybe(fc.constantFrom(3, 0.1, 10, 30), 30),
  maxDispatchFlops: maybe(fc.constantFrom(1e6, 1e5, 1), 10),
  seed: fc.noShrink(fc.integer({ min: 1, max: 1e6 })),
  mask: fc.record({ axes, keep: share }),
  bias: fc.record({ axes, blocked: maybe(share, 70) }),
  softcap: fc.constantFrom(30, 50, 3, 0.5),
  alibi: fc.constantFrom("H" as const, "BH" as const),
  relativeBias: fc.record({
    buckets: fc.constantFrom(8, 4, 32, 6),
    bidirectional: fc.boolean(),
    beyondExact: maybe(fc.integer({ min: 1, max: 200 }), 60),
  }),
  dropout: fc.record({
    p: fc.constantFrom(0.5, 0.1, 0.9, 1, 1 / 3),
    seed: fc.oneof(fc.nat(), fc.maxSafeNat()),
  }),
  blockSize: fc.tuple(fc.constantFrom(64, 128), fc.constantFrom(64, 32, 96)),
});
type Draws = typeof draws extends fc.Arbitrary<infer T> ? T : never;

/** Problems of a feature set. They shrink to smaller ones of the same set. */
export const problemsOf = (set: FeatureSet): fc.Arbitrary<Case> => draws.map((drawn) => problemOf(set, drawn));

function problemOf(set: FeatureSet, drawn: Draws): Case {
  const { attentionChunk, sinkTokens, layout, onGpu, scale, spread, maxDispatchFlops, seed, window } = drawn;
  const sizes = sizesOf(set, drawn);
  const positions = positionsOf(set, drawn, sizes);
  const padded = positions.kvLengths || positions.qLengths;
  const dropout = set.dropout && { ...drawn.dropout, ...(set.dropout === "none" && { p: 0 }) };
  const problem = {
    ...sizes,
    ...{ D: set.D, Dv: set.Dv, dtype: set.dtype, variant: set.variant, rowMax: set.rowMax, sinks: set.sinks },
    ...positions,
    poison: padded && drawn.poison,
    ...{ attentionChunk, sinkTokens, layout, onGpu, scale, spread, maxDispatchFlops, seed, window, dropout },
    mask: set.mask && maskOf(set.mask, drawn.mask),
    bias: set.bias && defined(drawn.bias),
    softcap: set.softcap && drawn.softcap,
    alibi: set.alibi && drawn.alibi,
    relativeBias: set.relativeBias && relativeBiasOf(drawn.relativeBias),
    scoreFunction: set.scoreFunction,
    maskFunction: set.maskFunction,
    blockSize: set.blockMask && drawn.blockSize,
  };
  return defined<Case>(problem as Partial<Case>) as Case;
}

/** Shapes, with packed sequences where the set has them, cut to an amount of work that any adapter does soon. */
function sizesOf({ entries, D, Dv = D }: FeatureSet, { sizes: drawn }: Draws) {
  const packed = entries === "packed" && {
    cuSeqlensQ: cumulative(drawn.queries.slice(0, drawn.entries)),
    cuSeqlensKv: cumulative(drawn.keys.slice(0, drawn.entries)),
  };
  const [M, N] = packed ? [last(packed.cuSeqlensQ), last(packed.cuSeqlensKv)] : [drawn.M, drawn.N];
  const scores = packed
    ? drawn.queries.slice(0, drawn.entries).reduce((sum, rows, entry) => sum + rows * drawn.keys[entry], 0)
    : M * N;
  const most = MOST_WORK / (scores * (D + Dv + 32));
  const { kvHeads, groups } = drawn;
  const choices = [
    { B: drawn.B, Hkv: kvHeads, H: kvHeads * groups },
    { B: drawn.B, Hkv: kvHeads, H: kvHeads },
    { B: drawn.B, Hkv: 1, H: 1 },
    { B: 1, Hkv: 1, H: 1 },
  ].map((choice) => (packed ? { ...choice, B: 1 } : choice));
  return { ...(choices.find(({ B, H }) => B * H <= most) ?? choices[3]), M, N, ...packed };
}

/** Causality, lengths and positions: of all entries together or of each. */
function positionsOf(set: FeatureSet, drawn: Draws, { B, M, N, cuSeqlensQ, cuSeqlensKv }: ReturnType<typeof sizesOf>) {
  const { entries } = set;
  const own = entries === "alike" ? 0 : entries === "own" ? drawn.own : drawn.own - 1;
  const count = cuSeqlensQ ? cuSeqlensQ.length - 1 : B;
  const within = (lengths: readonly number[], rows: number, starts: readonly number[] | undefined) =>
    lengths.slice(0, count).map((length, b) => Math.min(length, starts ? starts[b + 1] - starts[b] : rows));
  const queryOffset = own & 4 ? drawn.offsets.slice(0, count) : drawn.offset;
  // Names of alignments don't go with an offset, and block masks have the first query where the offset says.
  const named = queryOffset === undefined && !(set.blockMask && drawn.causal === "top-left");
  return {
    causal: named || drawn.causal === undefined ? drawn.causal : drawn.causal !== false,
    queryOffset,
    kvLengths: own & 1 ? within(drawn.lengths.kv, N, cuSeqlensKv) : undefined,
    qLengths: own & 2 ? within(drawn.lengths.q, M, cuSeqlensQ) : undefined,
  };
}

/** Bits run along the keys. */
function maskOf(kind: "bytes" | "bits", { axes: chosen, keep }: Draws["mask"]): NonNullable<Case["mask"]> {
  if (kind === "bytes") return { axes: chosen, keep };
  return { axes: chosen.includes("N") ? chosen : `${chosen}N`, bits: true, keep };
}

function relativeBiasOf({ buckets, bidirectional, beyondExact }: Draws["relativeBias"]) {
  const exact = Math.floor((bidirectional ? buckets / 2 : buckets) / 2);
  return { buckets, bidirectional, ...(beyondExact && { maxDistance: exact + beyondExact }) };
}

const cumulative = (lengths: readonly number[]): number[] => {
  let end = 0;
  return [0, ...lengths.map((length) => (end += length))];
};
const last = (numbers: readonly number[]) => numbers[numbers.length - 1];
