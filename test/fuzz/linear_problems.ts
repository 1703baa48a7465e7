// Random problems of linear attention over the whole feature space, valid by construction.

import fc from "fast-check";
import { defined } from "../support/features.ts";
import type { LinearCase } from "../support/linear.ts";
import { extremesOf, maybe, perEntry, size, weighted } from "./draws.ts";

/**
 * What the texts of kernels depend on. Everything else of a problem is free, and compiles nothing.
 */
interface LinearSet
  extends Pick<LinearCase, "D" | "Dv" | "dtype" | "updateRule" | "featureMap" | "normalized"> {
  readonly causal: boolean | undefined;
  readonly rowDecay: true | undefined;
  readonly variant: LinearCase["variant"];
  /** Heads of the output that share a state. */
  readonly group: number;
  readonly lengths: boolean;
  readonly mask: boolean;
}

/** About how many multiply-adds a problem may take before heads and batch entries are cut. */
const MOST_WORK = 1e7;

const headDim = weighted([
  [12, fc.constantFrom(8, 16, 32, 40, 64, 1, 5, 33)],
  [1, fc.constantFrom(80, 128, 160)],
]);
const float = fc.constantFrom("f32" as const, "f16" as const, "bf16" as const);

const linearSet: fc.Arbitrary<LinearSet> = fc
  .record({
    D: headDim,
    Dv: maybe(headDim, 40),
    dtype: maybe(
      fc.oneof(
        fc.constantFrom("f16" as const, "bf16" as const),
        fc.tuple(float, float, float, float, float),
      ),
      30,
    ),
    updateRule: maybe(
      fc.constantFrom(
        "linear" as const,
        "gated" as const,
        "delta" as const,
        "gated_delta" as const,
      ),
      60,
    ),
    causal: maybe(fc.boolean(), 70),
    featureMap: maybe(fc.constantFrom("elu" as const, "none" as const)),
    normalized: maybe(fc.boolean()),
    rowDecay: maybe(fc.constant(true as const), 40),
    variant: maybe(fc.constantFrom("recurrent" as const, "chunked" as const), 50),
    group: fc.constantFrom(1, 1, 1, 2, 3),
    lengths: fc.boolean(),
    mask: fc.boolean(),
  })
  .map((set) => {
    const { updateRule } = set;
    const causal = updateRule && updateRule !== "linear" ? undefined : set.causal;
    const inOrder = causal ?? updateRule !== undefined;
    const delta = updateRule?.endsWith("delta");
    // Delta rules need keys of length 1 at most, or the state would grow without bound. Mapped keys
    // are longer.
    const featureMap = delta ? undefined : set.featureMap;
    // If nothing is mapped, the sum that divides can be near 0, and the quotient anything.
    const mapped = (featureMap ?? (updateRule ? "none" : "elu")) === "elu";
    const normalized = delta || !mapped ? false : set.normalized;
    const rowDecay = updateRule?.startsWith("gated") ? set.rowDecay : undefined;
    const able = set.variant === "recurrent" ? inOrder : !delta && !rowDecay;
    return {
      ...set,
      causal,
      featureMap,
      normalized,
      rowDecay,
      variant: able ? set.variant : undefined,
    };
  }) as fc.Arbitrary<LinearSet>;

/** Draws the feature sets of a run: few, because each is up to three kernels to compile. */
export const linearSets = (seed: number, count: number): LinearSet[] =>
  fc.sample(linearSet, { seed, numRuns: count });

/**
 * A sum of huge and other numbers loses the others in any order, so no right result is known for
 * huge values.
 */
const LINEAR_EXTREMES = ["nanQ", "nanK", "nanV", "tinyQ", "tinyV", "constant"] as const;

/**
 * What is drawn for every problem, whether its feature set uses it or not, so that a shrunk problem
 * keeps the rest.
 */
const draws = fc.record({
  N: size(700),
  M: size(300),
  B: fc.integer({ min: 1, max: 3 }),
  kHeads: fc.integer({ min: 1, max: 2 }),
  values: fc.constantFrom(1, 1, 2),
  fewerQueries: maybe(fc.constant(true), 15),
  lengths: perEntry(size(300)),
  onGpu: maybe(fc.constant(true), 40),
  keyMask: fc.record({ keep: fc.constantFrom(0.7, 0.5, 0.9, 0.1, 0, 1), shared: fc.boolean() }),
  poison: maybe(fc.constant(true), 60),
  past: maybe(fc.constant(true), 50),
  keeps: maybe(fc.constantFrom("present" as const, "place" as const), 60),
  planned: maybe(fc.constant(true), 40),
  sharedBeta: maybe(fc.constant(true), 30),
  decaySpread: maybe(fc.constantFrom(0.01, 3, 30)),
  forget: maybe(fc.constantFrom(0.02, 0.3)),
  layout: maybe(fc.constant("bmhd" as const), 40),
  scale: maybe(fc.constantFrom(1, 0.1, -0.5, 0)),
  spread: maybe(fc.constantFrom(3, 0.1), 20),
  maxDispatchFlops: maybe(fc.constantFrom(1e6, 1e5, 1), 15),
  extremes: extremesOf(LINEAR_EXTREMES),
  seed: fc.noShrink(fc.integer({ min: 1, max: 1e6 })),
});

/** Draws problems of a feature set. They shrink to smaller ones of the same set. */
export const linearProblemsOf = (set: LinearSet): fc.Arbitrary<LinearCase> =>
  draws.map((drawn) => {
    const {
      updateRule,
      causal = updateRule !== undefined,
      normalized = updateRule === undefined,
    } = set;
    const { N, seed, layout, planned } = drawn;
    // Each dispatch costs a little, and with the least work it has one token.
    const most = drawn.maxDispatchFlops;
    const maxDispatchFlops = most && N * most < 1e8 && N > 100 ? 1e6 : most;
    const { D, Dv = D } = set;
    const sizes = drawn.kHeads * drawn.values * set.group * drawn.B * (N + drawn.M) * D * Dv;
    const [B, kHeads, values] =
      sizes < MOST_WORK ? [drawn.B, drawn.kHeads, drawn.values] : [1, 1, 1];
    const Hkv = kHeads * values;
    // Queries may have fewer heads than values have, if each reads one state.
    const H = drawn.fewerQueries && set.group === 1 ? kHeads : Hkv * set.group;
    const masked = set.lengths || set.mask;
    const gated = updateRule?.startsWith("gated");
    const problem = {
      B,
      H,
      Hkv,
      Hk: kHeads,
      N,
      D,
      Dv: set.Dv,
      seed,
      layout,
      planned,
      maxDispatchFlops,
      dtype: set.dtype,
      updateRule,
      causal: set.causal,
      featureMap: set.featureMap,
      normalized: set.normalized,
      rowDecay: set.rowDecay,
      variant: set.variant,
      M: causal ? undefined : drawn.M,
      scale: normalized ? undefined : drawn.scale,
      kvLengths: set.lengths
        ? drawn.lengths.slice(0, B).map((length) => Math.min(length, N))
        : undefined,
      onGpu: set.lengths ? drawn.onGpu : undefined,
      keyMask: set.mask ? drawn.keyMask : undefined,
      poison: masked ? drawn.poison : undefined,
      past: drawn.past,
      keeps: drawn.keeps,
      spread: drawn.spread,
      extremes: drawn.extremes,
      ...(gated && { decaySpread: drawn.decaySpread, forget: drawn.forget }),
      sharedBeta: updateRule?.endsWith("delta") ? drawn.sharedBeta : undefined,
    };
    return defined<LinearCase>(problem as Partial<LinearCase>) as LinearCase;
  });
