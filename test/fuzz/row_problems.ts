// Random problems of what works on rows: shapes, axes, strides, dtypes, and rows of every
// magnitude.

import fc from "fast-check";
import type { Extreme } from "../support/extremes.ts";
import { defined } from "../support/features.ts";
import type { RowCase, RowExtreme, RowOperation } from "../support/row_cases.ts";
import type { ScoreCase } from "../support/score_cases.ts";
import { maybe, size } from "./draws.ts";

/** Percent of the problems of rows that have hostile values. */
export const HOSTILE_ROWS = 60;

const OPERATIONS: readonly RowOperation[] = [
  ...([
    "softmax",
    "logSoftmax",
    "layerNorm",
    "rmsNorm",
    "gelu",
    "addBias",
    "copyTensor",
    "project",
    "rotary",
  ] as const),
  "positionEncoding",
];
const KINDS: readonly RowExtreme[] = ["huge", "tiny", "constant", "far", "zeros", "nan", "nothing"];

const float = fc.constantFrom("f32" as const, "f32" as const, "f16" as const, "bf16" as const);
const flag = maybe(fc.constant(true as const), 40);

/** Draws what the text of a kernel depends on, as far as it is drawn once a run. */
export const rowSets = (seed: number, count: number) =>
  fc.sample(
    fc.record({
      op: fc.constantFrom(...OPERATIONS),
      dtype: maybe(fc.tuple(float, float), 40),
      residual: flag,
      weight: flag,
      bias: flag,
      other: flag,
    }),
    { seed, numRuns: count },
  );
type RowSet = ReturnType<typeof rowSets>[number];

const draws = fc.record({
  M: size(100),
  N: size(700),
  B: fc.integer({ min: 1, max: 3 }),
  H: fc.integer({ min: 1, max: 3 }),
  K: size(70),
  axis: fc.constantFrom(undefined, -1, -1, -2, -3, 0, 1, 2),
  order: maybe(fc.tuple(fc.nat({ max: 5 }), fc.nat({ max: 5 })), 40),
  gap: maybe(fc.integer({ min: 1, max: 5 }), 30),
  epsilon: fc.constantFrom(undefined, 1e-5, 1e-12, 0, 0.1),
  offset: maybe(fc.integer({ min: 0, max: 100_000 }), 50),
  spread: maybe(fc.constantFrom(0.1, 10, 1000), 30),
  extremes: maybe(
    fc.uniqueArray(fc.constantFrom(...KINDS), { minLength: 1, maxLength: 3 }),
    HOSTILE_ROWS,
  ),
  seed: fc.noShrink(fc.integer({ min: 1, max: 1e6 })),
});

const scoreDraws = fc.record({
  M: size(100),
  N: size(300),
  B: fc.integer({ min: 1, max: 2 }),
  H: fc.integer({ min: 1, max: 3 }),
  K: fc.constantFrom(8, 16, 5),
  parts: fc.integer({ min: 1, max: 5 }),
  count: fc.integer({ min: 1, max: 40 }),
  causal: maybe(fc.constant(true as const), 40),
  spread: maybe(fc.constantFrom(0.1, 3), 30),
  extremes: maybe(
    fc.uniqueArray(fc.constantFrom(0, 1, 2, 3), { minLength: 1, maxLength: 3 }),
    HOSTILE_ROWS,
  ),
  seed: fc.noShrink(fc.integer({ min: 1, max: 1e6 })),
});
/** The order of keys whose scores are NaN is not promised. */
const SCORE_EXTREMES: Readonly<Record<ScoreCase["op"], readonly Extreme[]>> = {
  mergeAttention: ["nanV", "hugeV", "tinyV", "farSinks"],
  attentionWeights: ["nanQ", "nanK", "tinyQ", "constant"],
  topKKeys: ["tinyQ", "tinyK", "constant", "tinyK"],
};

/** Draws problems of one operation on scores. */
export const scoreProblemsOf = (op: ScoreCase["op"]): fc.Arbitrary<ScoreCase> =>
  scoreDraws.map(
    ({ M, N, B, H, K, parts, count, causal, spread, extremes, seed }) =>
      defined<ScoreCase>({
        op,
        B,
        H,
        M: Math.abs(M),
        N: Math.max(1, Math.abs(N)),
        K: op === "mergeAttention" ? parts : K,
        count: op === "topKKeys" ? count : undefined,
        causal: op === "mergeAttention" ? undefined : causal,
        spread,
        extremes: extremes && [...new Set(extremes.map((index) => SCORE_EXTREMES[op][index]))],
        seed,
      }) as ScoreCase,
  );

/** Draws problems of a set. They shrink to smaller ones of the same set. */
export const rowProblemsOf = (set: RowSet): fc.Arbitrary<RowCase> =>
  draws.map(({ M, N, B, H, K, axis, order, gap, epsilon, offset, spread, extremes, seed }) => {
    const { op, dtype, residual, weight, bias, other } = set;
    const normed = op === "layerNorm" || op === "rmsNorm";
    const paired = op === "rotary" || op === "positionEncoding";
    const width = Math.max(1, Math.abs(N));
    // Several axes are one row for a kernel only if they lie one after the other.
    const dense = normed && axis !== undefined && axis !== -1 && axis !== 2;
    const kinds = extremes?.filter((kind) => isMeant(kind, { op, epsilon, residual }));
    return defined<RowCase>({
      op,
      B,
      H: op === "rotary" ? H : undefined,
      M: Math.abs(M),
      N: paired ? 2 * Math.ceil(width / 2) : width,
      K: op === "project" ? Math.max(1, Math.abs(K)) : undefined,
      axis: normed || op.endsWith("oftmax") ? axis : undefined,
      dtype,
      order: dense ? undefined : order && (op === "rotary" ? [0, 0] : order),
      gap: dense ? undefined : gap,
      epsilon: normed ? epsilon : undefined,
      residual:
        normed || op === "gelu" || op === "addBias" || op === "copyTensor" ? residual : undefined,
      weight: normed ? weight : undefined,
      bias: normed || op === "gelu" || op === "copyTensor" || op === "project" ? bias : undefined,
      other: paired || op === "gelu" ? other : undefined,
      offset: paired ? offset : undefined,
      spread,
      extremes: kinds?.length ? kinds : undefined,
      seed,
    }) as RowCase;
  });

/**
 * Leaves out problems without a right result: rows of one number have no deviation, so none with
 * epsilon 0.
 */
function isMeant(
  kind: RowExtreme,
  {
    op,
    epsilon,
    residual,
  }: { op: RowOperation; epsilon: number | undefined; residual: true | undefined },
): boolean {
  const normed = op === "layerNorm" || op === "rmsNorm";
  if (kind === "nothing") return op.endsWith("oftmax");
  if (normed && epsilon === 0 && !residual)
    return kind !== "constant" && kind !== "zeros" && kind !== "far";
  return true;
}
