// Random attention problems over the whole feature space, valid by construction.

import fc from "fast-check";
import type { Case } from "../support/cases.ts";
import { EXTREMES, type Extreme } from "../support/extremes.ts";
import { type Axes, defined, type SimilarityFeature } from "../support/features.ts";
import { MASK_FUNCTIONS, SCORE_FUNCTIONS } from "../support/functions.ts";
import { extremesOf, MOST_ENTRIES, maybe, perEntry, size, WholeNumber, weighted } from "./draws.ts";

/**
 * What the text of a kernel depends on. Everything else of a problem is free, and compiles nothing.
 */
export interface FeatureSet
  extends Pick<Case, "variant" | "D" | "Dv" | "dtype" | "rowMax" | "sinks"> {
  /**
   * Whether lengths and positions are the same for all entries, differ, or are those of packed
   * entries, one after the other.
   */
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
  readonly similarity?: SimilarityFeature;
  readonly temperature?: "plain" | "log" | undefined;
}

const HEAD_DIMS = [8, 16, 32, 40, 64, 1, 5];
/**
 * About how many multiply-adds a problem may take before heads, batch entries and at last queries
 * are cut. A software adapter does 2e8 in a second.
 */
const MOST_WORK = 3e7;

/** How many multiply-adds a column of other scores is worth. */
const SIMILARITY_WORK = 4;

const keysOf = <T extends object>(object: T) => Object.keys(object) as (keyof T)[];

const headDim = weighted([
  [14, fc.constantFrom(...HEAD_DIMS)],
  [1, fc.constant(128)],
]);
const float = fc.constantFrom("f32" as const, "f16" as const, "bf16" as const);
const flag = maybe(fc.constant(true as const));

/**
 * Whether a set is for the decode kernel, whose pipelines depend on the number of queries. A few
 * queries are enough.
 */
const decodes = ({ variant }: { variant?: string | undefined }) =>
  variant?.startsWith("decode") ?? false;
const FEW = 4;

/** Variants without tiles, and the one for narrow heads. */
const ROWS = ["16x4-quad", "8x4-quad", "64x4"];
const NARROW = "64x4";

export const featureSet: fc.Arbitrary<FeatureSet> = fc
  .record({
    variant: weighted([
      [7, fc.constant("8x32")], // it compiles fastest
      [3, fc.constant("32x32")],
      [2, fc.constantFrom(undefined, "64x32", "64x64")],
      [5, fc.constantFrom(...ROWS)],
      [6, fc.constantFrom("decode-4-quad", "decode-16", "decode-64", "decode-64-quad")],
    ]),
    D: headDim,
    Dv: maybe(headDim, 40),
    dtype: maybe(
      fc.oneof(
        fc.constantFrom("f16" as const, "bf16" as const),
        fc.tuple(float, float, float, float),
      ),
      30,
    ),
    entries: fc.constantFrom("alike" as const, "own" as const, "packed" as const),
    rowMax: flag,
    sinks: flag,
    bias: flag,
    softcap: flag,
    alibi: flag,
    relativeBias: flag,
    mask: maybe(fc.constantFrom("bytes" as const, "bits" as const)),
    dropout: maybe(fc.constantFrom("some" as const, "some" as const, "none" as const)),
    scoreFunction: maybe(fc.constantFrom(...keysOf(SCORE_FUNCTIONS))),
    maskFunction: maybe(fc.constantFrom(...keysOf(MASK_FUNCTIONS)), 30),
    blockMask: maybe(fc.constant(true as const), 60),
  })
  .map(({ variant, ...set }) => ({
    ...set,
    variant: variant === NARROW && set.D > 64 ? "64x32" : variant,
    // A block mask is for one position of the queries, needs a function, and has no blocks for
    // decoding.
    blockMask:
      set.entries === "alike" && set.maskFunction && !decodes({ variant })
        ? set.blockMask
        : undefined,
  })) as fc.Arbitrary<FeatureSet>;

export const similarity: fc.Arbitrary<SimilarityFeature> = weighted<SimilarityFeature>([
  [
    3,
    fc.record({
      kind: fc.constant("additive" as const),
      perHead: fc.boolean(),
      innerBias: fc.boolean(),
      normalize: fc.boolean(),
      innerScale: fc.constantFrom(1, 1, 0.3, -2),
    }),
  ],
  [1, fc.constant("cosine" as const)],
  [1, fc.record({ kind: fc.constantFrom("l2" as const, "rms" as const), weights: fc.boolean() })],
]);

/** Draws feature sets whose scores aren't dot products. */
export const similaritySets = (seed: number, count: number): FeatureSet[] =>
  fc.sample(
    fc
      .record({
        set: featureSet,
        similarity,
        temperature: maybe(fc.constantFrom("plain" as const, "log" as const), 40),
      })
      .map(
        ({ set, ...compared }): FeatureSet => ({
          ...set,
          ...compared,
          // The decode kernel takes no additive scores.
          ...(decodes(set) && { variant: "8x32" }),
        }),
      ),
    { seed, numRuns: count },
  );

/** Draws the feature sets of a run: few, because each is a kernel to compile. */
export const featureSets = (seed: number, count: number): FeatureSet[] =>
  fc.sample(featureSet, { seed, numRuns: count });

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
/** How many keys a window reaches to one side. */
const reach = fc.oneof(fc.constantFrom(-1, 0, 1), fc.integer({ min: 0, max: 100 }));

/**
 * What is drawn for every problem, whether its feature set uses it or not, so that a shrunk problem
 * keeps the rest.
 */
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
  /**
   * Which of lengths of keys, lengths of queries and positions differ between entries, as bits.
   */
  own: fc.integer({ min: 1, max: 7 }),
  kvSplits: maybe(fc.integer({ min: 1, max: 20 }), 60),
  offsets: perEntry(offset),
  offset: maybe(offset),
  causal: maybe(
    fc.constantFrom<NonNullable<Case["causal"]>[]>(true, "bottom-right", "top-left", false),
    60,
  ),
  window: maybe(fc.tuple(reach, reach)),
  sinkTokens: maybe(fc.oneof(fc.constantFrom(1, 4, 32), fc.integer({ min: 0, max: 200 }))),
  attentionChunk: maybe(
    fc.oneof(fc.constantFrom(1, 2, 31, 32, 33, 64), fc.integer({ min: 1, max: 400 })),
  ),
  layout: maybe(fc.constant("bmhd" as const), 40),
  onGpu: maybe(fc.constant(true), 30),
  poison: maybe(fc.constant(true), 50),
  scale: maybe(fc.constantFrom(1, 0.1, -0.5, 0, 3)),
  spread: maybe(fc.constantFrom(3, 0.1, 10, 30), 30),
  maxDispatchFlops: maybe(fc.constantFrom(1e6, 1e5, 1), 10),
  extremes: extremesOf(EXTREMES),
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
    step: maybe(fc.oneof(fc.nat(9), fc.constant(2 ** 32 - 1))),
  }),
  blockSize: fc.tuple(fc.constantFrom(64, 128), fc.constantFrom(64, 32, 96)),
});
type Draws = typeof draws extends fc.Arbitrary<infer T> ? T : never;

/**
 * Draws problems of a feature set, of about so many multiply-adds at most. They shrink to smaller
 * ones of the same set.
 */
export const problemsOf = (set: FeatureSet, work = MOST_WORK): fc.Arbitrary<Case> =>
  draws.map((drawn) => problemOf(set, drawn, work));

function problemOf(set: FeatureSet, drawn: Draws, work: number): Case {
  const {
    attentionChunk,
    sinkTokens,
    layout,
    onGpu,
    scale,
    spread,
    maxDispatchFlops,
    seed,
    window,
  } = drawn;
  const sizes = sizesOf(set, drawn, work);
  const positions = positionsOf(set, drawn, sizes);
  const padded = positions.kvLengths || positions.qLengths;
  const dropout = set.dropout && { ...drawn.dropout, ...(set.dropout === "none" && { p: 0 }) };
  const problem = {
    ...sizes,
    D: set.D,
    Dv: set.Dv,
    dtype: set.dtype,
    variant: set.variant,
    rowMax: set.rowMax,
    sinks: set.sinks,
    ...positions,
    kvSplits: decodes(set) ? drawn.kvSplits : undefined,
    poison: padded && drawn.poison,
    attentionChunk,
    sinkTokens,
    layout,
    onGpu,
    scale,
    spread,
    maxDispatchFlops,
    seed,
    window,
    dropout,
    similarity: set.similarity,
    temperature: set.temperature,
    extremes: allowed(set, drawn.extremes),
    mask: set.mask && maskOf(set.mask, drawn.mask),
    bias: set.bias && defined(drawn.bias),
    softcap: set.softcap && drawn.softcap,
    alibi: set.alibi && drawn.alibi,
    relativeBias: set.relativeBias && relativeBiasOf(drawn.relativeBias),
    scoreFunction: set.scoreFunction,
    maskFunction: set.maskFunction,
    // Blocks are whole tiles.
    blockSize:
      set.blockMask &&
      (set.variant?.endsWith("x64") ? ([drawn.blockSize[0], 64] as const) : drawn.blockSize),
  };
  return defined<Case>(problem as Partial<Case>) as Case;
}

/**
 * Returns the hostile values that have a meaning for a set. Huge values go with neither dropout nor
 * a score function: for any score function, and for weights that are no longer those of an average,
 * nobody knows how far a right result may be from float64.
 */
function allowed(
  set: FeatureSet,
  extremes: readonly Extreme[] | undefined,
): readonly Extreme[] | undefined {
  const left = extremes?.filter((kind) => {
    if (kind.startsWith("huge")) return !set.dropout && !set.scoreFunction;
    return kind === "farBias"
      ? set.bias && !set.dropout && !set.scoreFunction
      : kind !== "farSinks" || set.sinks;
  });
  return left?.length ? left : undefined;
}

/**
 * Returns shapes, with packed sequences if the set has them, cut to an amount of work that any
 * adapter does soon.
 */
function sizesOf(set: FeatureSet, { sizes: drawn }: Draws, work: number) {
  const { entries, D, Dv = D, similarity } = set;
  const few = (rows: number) => (decodes(set) ? rows % (FEW + 1) : rows);
  const packed = entries === "packed" && {
    cuSeqlensQ: cumulative(drawn.queries.slice(0, drawn.entries).map(few)),
    cuSeqlensKv: cumulative(drawn.keys.slice(0, drawn.entries)),
  };
  const [M, N] = packed
    ? [last(packed.cuSeqlensQ), last(packed.cuSeqlensKv)]
    : [few(drawn.M), drawn.N];
  const scores = packed
    ? drawn.queries
        .slice(0, drawn.entries)
        .reduce((sum, rows, entry) => sum + rows * drawn.keys[entry], 0)
    : M * N;
  const most = work / (scores * ((similarity ? SIMILARITY_WORK * D : D) + Dv + 32));
  const { kvHeads, groups } = drawn;
  const choices = [
    { B: drawn.B, Hkv: kvHeads, H: kvHeads * groups },
    { B: drawn.B, Hkv: kvHeads, H: kvHeads },
    { B: drawn.B, Hkv: 1, H: 1 },
    { B: 1, Hkv: 1, H: 1 },
  ].map((choice) => (packed ? { ...choice, B: 1 } : choice));
  const found = choices.find(({ B, H }) => B * H <= most) ?? choices[3];
  const rows = packed || most >= 1 ? M : Math.max(1, Math.floor(M * most));
  return { ...found, M: rows, N, ...packed };
}

/** Returns causality, lengths and positions, of all entries together or of each. */
function positionsOf(
  set: FeatureSet,
  drawn: Draws,
  { B, M, N, cuSeqlensQ, cuSeqlensKv }: ReturnType<typeof sizesOf>,
) {
  const { entries } = set;
  const own = entries === "alike" ? 0 : entries === "own" ? drawn.own : drawn.own - 1;
  const count = cuSeqlensQ ? cuSeqlensQ.length - 1 : B;
  const within = (
    lengths: readonly number[],
    rows: number,
    starts: readonly number[] | undefined,
  ) =>
    lengths
      .slice(0, count)
      .map((length, b) => Math.min(length, starts ? starts[b + 1] - starts[b] : rows));
  const queryOffset = own & 4 ? drawn.offsets.slice(0, count) : drawn.offset;
  // Named alignments don't go with an offset, and in block masks the offset says where the first
  // query stands.
  const named = queryOffset === undefined && !(set.blockMask && drawn.causal === "top-left");
  return {
    causal: named || drawn.causal === undefined ? drawn.causal : drawn.causal !== false,
    queryOffset,
    kvLengths: own & 1 ? within(drawn.lengths.kv, N, cuSeqlensKv) : undefined,
    qLengths: own & 2 ? within(drawn.lengths.q, M, cuSeqlensQ) : undefined,
  };
}

/** Returns the mask of a problem. Bits run along the keys. */
function maskOf(
  kind: "bytes" | "bits",
  { axes: chosen, keep }: Draws["mask"],
): NonNullable<Case["mask"]> {
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
