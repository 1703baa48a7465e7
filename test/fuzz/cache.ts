// Random histories of caches of every kind.

import fc from "fast-check";
import type { BurstCall, Rejection } from "../support/cache_bursts.ts";
import type { CacheCase, Step } from "../support/cache_steps.ts";
import { defined } from "../support/features.ts";
import { maybe, WholeNumber, weighted } from "./draws.ts";

/**
 * What the texts of a cache's kernels depend on, for its appends and for attention to it.
 */
export type CacheSet = Pick<
  CacheCase,
  | "place"
  | "D"
  | "Dv"
  | "dtype"
  | "groupSize"
  | "pageSize"
  | "window"
  | "ring"
  | "sinkTokens"
  | "rotary"
  | "qkNorm"
  | "queries"
  | "softcap"
  | "alibi"
  | "sinks"
  | "variant"
>;

/** The most sequences of a cache. */
const MOST_ENTRIES = 5;
const PLACES = ["rows", "ring", "paged"] as const;
const PAGE_SIZES = [1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 64, 65, 128, 255, 256];
/** The most rows of all pages together, since snapshots of them are read back. */
const MOST_ROWS = 1200;

const flag = (percent: number) => maybe(fc.constant(true as const), percent);
const DTYPES = {
  floats: fc.constantFrom(undefined, undefined, "f16" as const, "bf16" as const),
  integers: fc.constantFrom("int8" as const, "int4" as const),
};

const cacheSet = (
  place: CacheCase["place"],
  numbers: keyof typeof DTYPES,
): fc.Arbitrary<CacheSet> =>
  fc
    .record({
      D: fc.constantFrom(8, 16, 16, 24, 5, 64),
      Dv: maybe(fc.constantFrom(8, 24, 3), 25),
      dtype: DTYPES[numbers],
      grouped: fc.boolean(),
      pageSize: fc.constantFrom(...PAGE_SIZES),
      window: fc.constantFrom(0, 1, 7, 16, 31, 50),
      slack: fc.constantFrom(1, 2, 8, 33),
      sinkTokens: fc.constantFrom(undefined, 1, 4, 9),
      rotary: maybe(
        fc
          .record({ interleaved: maybe(fc.constant(true), 50), part: fc.boolean() })
          .map(({ part, ...rest }) => defined({ ...rest, rotaryDim: part ? 4 : undefined })),
        50,
      ),
      qkNorm: flag(30),
      queries: flag(60),
      softcap: maybe(fc.constant(20), 20),
      alibi: flag(20),
      sinks: flag(20),
      variant: maybe(fc.constant("32x32"), 40),
    })
    .map(({ grouped, slack, pageSize, window, sinkTokens, ...set }) => {
      const { D, rotary, qkNorm } = set;
      const isOdd = D % 2 !== 0; // its channels don't make pairs
      return defined<CacheSet>({
        ...set,
        place,
        groupSize:
          grouped && numbers === "integers" && D % 8 === 0 && (set.Dv ?? D) % 8 === 0
            ? 8
            : undefined,
        rotary: isOdd && rotary && !rotary.rotaryDim ? undefined : rotary,
        queries: rotary || qkNorm ? set.queries : undefined,
        ...(place === "paged" && { pageSize }),
        ...(place === "ring" && { window, ring: window + slack, sinkTokens }),
      } as Partial<CacheSet>) as CacheSet;
    });

/** Draws the sets of a run: each kind of cache with floats and with integers, `each` times. */
export const cacheSets = (seed: number, each: number): CacheSet[] =>
  PLACES.flatMap((place) =>
    (["floats", "integers"] as const).map((numbers) => [place, numbers] as const),
  ).flatMap(([place, numbers], index) =>
    fc.sample(cacheSet(place, numbers), { seed: (seed + index) | 0, numRuns: each }),
  );

const small = (edges: readonly number[], most: number) =>
  new WholeNumber(
    weighted([
      [3, fc.constantFrom(...edges)],
      [2, fc.integer({ min: 0, max: most })],
    ]),
    most,
  );
const entry = fc.nat({ max: MOST_ENTRIES - 1 });
const counts = fc.array(small([0, 1, 1, 1, 2, 5, 16, 31, 32, 33], 60), {
  minLength: 1,
  maxLength: MOST_ENTRIES,
});
const batch = maybe(fc.shuffledSubarray([0, 1, 2, 3, 4], { minLength: 1 }), 50);

const sources = fc.array(entry, { minLength: MOST_ENTRIES, maxLength: MOST_ENTRIES });
const rejection = fc.constantFrom<Rejection>("shape", "destroyed", "buffer", "counts", "target");
/** Calls that are not awaited. */
const burstCall: fc.Arbitrary<BurstCall> = weighted<BurstCall>([
  [
    5,
    fc
      .record({
        append: counts,
        batch,
        rejected: maybe(fc.constantFrom<Rejection>("shape", "buffer", "counts"), 20),
      })
      .map((drawn) => defined(drawn) as BurstCall),
  ],
  [2, fc.record({ truncate: fc.tuple(entry, small([0, 1, 2, 8], 60)) })],
  [1, fc.record({ free: entry })],
  [1, fc.record({ fork: fc.tuple(entry, entry) })],
  [1, fc.record({ reorder: sources })],
]);

const step: fc.Arbitrary<Step> = weighted<Step>([
  [
    7,
    fc
      .record({
        append: counts,
        batch,
        spread: maybe(fc.constantFrom(0, 30, 1e-3)),
        poison: maybe(fc.constant(true)),
      })
      .map((drawn) => defined(drawn) as Step),
  ],
  [
    5,
    fc
      .record({
        attend: small([0, 1, 1, 1, 2, 4, 16, 31, 32, 33], 50),
        batch,
        causal: maybe(fc.constant(false), 25),
        window: maybe(small([0, 1, 16, 31, 40], 100), 30),
        sinkTokens: maybe(fc.constantFrom(1, 4, 40), 30),
      })
      .map((drawn) => defined(drawn) as Step),
  ],
  [1, fc.record({ reorder: sources })],
  [1, fc.record({ lost: counts, batch }).map((drawn) => defined(drawn) as Step)],
  [1, fc.record({ reject: rejection, batch }).map((drawn) => defined(drawn) as Step)],
  [2, fc.record({ calls: fc.array(burstCall, { minLength: 1, maxLength: 8 }) })],
  [2, fc.record({ truncate: fc.tuple(entry, small([0, 1, 2, 8, 17], 200)) })],
  [2, fc.record({ fork: fc.tuple(entry, entry, small([0, 0, 0, 1, 5, 16], 40)) })],
  [1, fc.record({ free: entry })],
  [1, fc.constant({ submit: true as const })],
]);

const draws = fc.record({
  // Shrinking may drop a step, wherever it stands.
  steps: fc
    .array(fc.option(step, { nil: undefined, freq: 1000 }), {
      minLength: 1,
      maxLength: 24,
      size: "max",
    })
    .map((steps) => steps.filter((one) => one !== undefined)),
  entries: fc.integer({ min: 1, max: MOST_ENTRIES }),
  Hkv: fc.integer({ min: 1, max: 2 }),
  G: fc.constantFrom(1, 1, 2, 3, 8),
  maxTokens: fc.oneof(fc.constantFrom(1, 16, 33, 64, 300), fc.integer({ min: 1, max: 300 })),
  /** A share of what all entries can have. */
  pages: fc.constantFrom(1, 0.7, 0.4, 0.15),
  seed: fc.noShrink(fc.integer({ min: 1, max: 1e6 })),
});

/** Histories of caches of a set. They shrink to shorter ones of the same set. */
export const historiesOf = (set: CacheSet): fc.Arbitrary<CacheCase> =>
  draws.map(({ steps, entries, Hkv, G, maxTokens, pages: share, seed }) => {
    const { pageSize } = set;
    const pages = pageSize && {
      pages: Math.max(
        1,
        Math.ceil(
          share * Math.min(entries * Math.ceil(maxTokens / pageSize), MOST_ROWS / pageSize),
        ),
      ),
    };
    return { ...set, entries, Hkv, G, maxTokens, ...pages, seed, steps };
  });
