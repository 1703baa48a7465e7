// Random problems of gradients, valid by construction: of attention over its whole feature space,
// and a share of all other operations that have gradients.

import fc from "fast-check";
import { BACKWARD_TILES } from "../../src/kernels/gradients/backward_tiles.ts";
import type { BackwardCase, BackwardExtreme } from "../support/backward_cases.ts";
import type { Case } from "../support/cases.ts";
import { defined } from "../support/features.ts";
import type { RowGradient, RowGradientCase } from "../support/row_gradient_cases.ts";
import { maybe, size, weighted } from "./draws.ts";
import { linearProblemsOf, linearSets } from "./linear_problems.ts";
import { type FeatureSet, featureSet, problemsOf, similarity } from "./problems.ts";
import type { GradientCase } from "./runs.ts";

/**
 * About how many multiply-adds the scores of a problem may take. Gradients take three times as
 * many, and so does each of the two evaluations on the CPU.
 */
const MOST_WORK = 3e6;

/** What the kernels of attention's gradients depend on beside the features. */
export interface BackwardSet {
  readonly features: FeatureSet;
  readonly ofOptions: true | undefined;
  readonly given: true | undefined;
  readonly dLse: true | undefined;
}

const flag = (percent: number) => maybe(fc.constant(true as const), percent);

const backwardSet: fc.Arbitrary<BackwardSet> = fc
  .record({
    features: featureSet,
    similarity: maybe(similarity, 30),
    temperature: maybe(fc.constantFrom("plain" as const, "log" as const), 25),
    variant: weighted([
      [4, fc.constant("8x32")], // it compiles fastest
      [4, fc.constantFrom("16x32", "32x64", undefined)],
      [4, fc.constantFrom("16x4-quad", "8x4-quad")],
    ]),
    ofOptions: flag(60),
    given: flag(80),
    dLse: flag(50),
  })
  .map(({ features, similarity, temperature, variant, ...rest }) => {
    const { Dv = features.D } = features;
    // A unit vector of one number has the gradient 0, and no magnitude that an error is a part of.
    const D = similarity && features.D === 1 ? 5 : features.D;
    // Quads add up dQ in memory, as aligned rows of f32, and need a storage buffer more.
    const dtype = typeof features.dtype === "object" ? features.dtype[0] : features.dtype;
    const few = !features.scoreFunction && !features.maskFunction;
    const onePass = few && !similarity && D % 4 === 0 && (dtype ?? "f32") === "f32";
    const tile = BACKWARD_TILES.find(({ name }) => name === variant);
    const fits = !tile || (tile.maxDim >= Math.max(D, Dv) && (tile.form === "tiles" || onePass));
    const taken = fits ? variant : "8x32";
    return { ...rest, features: { ...features, D, similarity, temperature, variant: taken } };
  }) as fc.Arbitrary<BackwardSet>;

/** Draws the sets of a run: few, because each is several kernels to compile. */
export const backwardSets = (seed: number, count: number): BackwardSet[] =>
  fc.sample(backwardSet, { seed, numRuns: count });

const draws = fc.record({
  gradientSpread: maybe(fc.constantFrom(1e3, 1e-3, 1e-8), 30),
  valueSpread: maybe(fc.constantFrom(1e3, 1e-3)),
  hidden: flag(40),
});
type Drawn = typeof draws extends fc.Arbitrary<infer T> ? T : never;

/** Draws problems of a set. They shrink to smaller ones of the same set. */
export const backwardProblemsOf = (set: BackwardSet): fc.Arbitrary<BackwardCase> =>
  fc.tuple(problemsOf(set.features, MOST_WORK), draws).map(([problem, drawn]) => {
    const { rowMax, kvSplits, extremes, ...rest } = problem;
    const { ofOptions, given, dLse } = set;
    return defined<BackwardCase>({
      ...rest,
      ...magnitudesOf(problem, drawn),
      hidden: drawn.hidden,
      extremes: extremesOf(extremes),
      ofOptions,
      given,
      dLse,
    }) as BackwardCase;
  });

/** Magnitudes of v and dOutput: ordinary ones in f16, which ends at 65504. */
const magnitudesOf = ({ dtype }: Case, { gradientSpread, valueSpread }: Drawn): Partial<Drawn> =>
  [dtype].flat().includes("f16") ? {} : { gradientSpread, valueSpread };

/** Hostile values of attention for whose gradients a bound is known. */
function extremesOf(extremes: Case["extremes"]): BackwardCase["extremes"] {
  const known = (kind: string): kind is BackwardExtreme => !/^(nan|huge|farBias)/.test(kind);
  const left = extremes?.filter(known);
  return left?.length ? left : undefined;
}

const ROW_GRADIENTS: readonly RowGradient[] = [
  ...(["softmaxBackward", "logSoftmaxBackward", "layerNormBackward", "rmsNormBackward"] as const),
  ...(["activationBackward", "projectionBackward", "rotaryBackward"] as const),
  "positionEncodingBackward",
];
const float = fc.constantFrom("f32" as const, "f32" as const, "f16" as const, "bf16" as const);

/** Draws what the text of a kernel of rows depends on. */
export const rowGradientSets = (seed: number, count: number) =>
  fc.sample(
    fc.record({
      op: fc.constantFrom(...ROW_GRADIENTS),
      dtype: maybe(fc.tuple(float, float), 30),
      residual: flag(40),
      weight: flag(50),
      bias: flag(40),
      other: flag(40),
      activation: fc.constantFrom("gelu", "gelu-tanh", "relu", "silu", "sigmoid", "tanh"),
    }),
    { seed, numRuns: count },
  );
type RowGradientSet = ReturnType<typeof rowGradientSets>[number];

const rowDraws = fc.record({
  M: size(100),
  N: size(300),
  B: fc.integer({ min: 1, max: 3 }),
  H: fc.integer({ min: 1, max: 3 }),
  K: size(70),
  axis: fc.constantFrom(undefined, -1, -2, -3),
  gap: maybe(fc.integer({ min: 1, max: 5 }), 30),
  epsilon: fc.constantFrom(undefined, 1e-12, 0.1),
  offset: maybe(fc.integer({ min: 0, max: 1000 }), 50),
  spread: maybe(fc.constantFrom(0.1, 10), 30),
  mean: maybe(fc.constantFrom(3, -100), 20),
  gradientSpread: maybe(fc.constantFrom(1e3, 1e-3), 30),
  seed: fc.noShrink(fc.integer({ min: 1, max: 1e6 })),
});

/** Draws problems of a set of rows. */
export const rowGradientsOf = (set: RowGradientSet): fc.Arbitrary<RowGradientCase> =>
  rowDraws.map((drawn) => {
    const { op, dtype, residual, weight, bias, other, activation } = set;
    const { M, N, K, H, axis, gap, epsilon, offset, mean, gradientSpread, ...rest } = drawn;
    const normed = op === "layerNormBackward" || op === "rmsNormBackward";
    const placed = op === "rotaryBackward" || op === "positionEncodingBackward";
    const acts = op === "activationBackward";
    const width = Math.max(1, Math.abs(N));
    // Several axes are one row for a kernel only if they lie one after the other.
    const dense = normed && axis !== undefined && axis !== -1;
    return defined<RowGradientCase>({
      ...rest,
      op,
      dtype,
      M: Math.abs(M),
      N: op === "rotaryBackward" ? 2 * Math.ceil(width / 2) : width,
      H: op === "rotaryBackward" ? H : undefined,
      K: op === "projectionBackward" ? Math.max(1, Math.abs(K)) : undefined,
      axis: normed || op.includes("oftmax") ? axis : undefined,
      gap: dense ? undefined : gap,
      epsilon: normed ? epsilon : undefined,
      offset: placed ? offset : undefined,
      residual: normed || acts ? residual : undefined,
      weight: normed || acts || op === "positionEncodingBackward" ? weight : undefined,
      bias: normed || acts ? bias : undefined,
      other: op === "rotaryBackward" ? other : undefined,
      activation: acts ? activation : undefined,
      mean: normed || acts ? mean : undefined,
      gradientSpread: dtype?.includes("f16") ? undefined : gradientSpread,
    } as Partial<RowGradientCase>) as RowGradientCase;
  });

/** Draws problems of the gradients of linear attention, of a set each. */
export const linearGradientsOf = (seed: number, count: number) =>
  linearSets(seed, count).map((set) =>
    linearProblemsOf(set).map(({ variant, keeps, extremes, ...problem }): GradientCase => {
      return { op: "linearAttentionBackward", ...problem, ...(keeps && { dState: true }) };
    }),
  );

/** Draws problems of the gradients of multiplicative attention. */
export const multiplicativeGradients: fc.Arbitrary<GradientCase> = fc
  .record({
    M: size(70),
    N: size(100),
    B: fc.integer({ min: 1, max: 2 }),
    H: fc.integer({ min: 1, max: 3 }),
    perHead: flag(50),
    layout: maybe(fc.constant("bmhd" as const), 40),
    causal: flag(50),
    lengths: maybe(fc.tuple(fc.nat(100), fc.nat(100)), 40),
    spread: maybe(fc.constantFrom(0.1, 1e-4), 50),
    gradientSpread: maybe(fc.constantFrom(1e3, 1e-3), 30),
    seed: fc.noShrink(fc.integer({ min: 1, max: 1e6 })),
  })
  .map(({ lengths, ...drawn }) => {
    const kvLengths = lengths?.slice(0, drawn.B).map((length) => Math.min(length, drawn.N));
    const problem = { ...drawn, op: "multiplicativeAttentionBackward", D: 8, K: 12, Dv: 8 };
    return defined({ ...problem, kvLengths }) as GradientCase;
  });
