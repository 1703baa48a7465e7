// The suites of `npm run fuzz`: for each operation what is drawn, and what a failure is shrunk by.
// How a suite's problems are run is in runs.ts, which pages load without what draws.

import type fc from "fast-check";
import {
  backwardProblemsOf,
  backwardSets,
  linearGradientsOf,
  multiplicativeGradients,
  rowGradientSets,
  rowGradientsOf,
} from "./backward_problems.ts";
import { cacheSets, historiesOf } from "./cache.ts";
import { linearProblemsOf, linearSets } from "./linear_problems.ts";
import { mhaProblemsOf, mhaSets } from "./mha_problems.ts";
import { featureSets, problemsOf, similaritySets } from "./problems.ts";
import { rowProblemsOf, rowSets, scoreProblemsOf } from "./row_problems.ts";
import type { SuiteName } from "./runs.ts";

/** A problem as plain data, which JSON keeps. */
export type Problem = object;

/** What fuzzing knows of an operation. */
export interface Suite {
  /** The suite's line of the help. */
  readonly about: string;
  /**
   * Draws once for a run, by its seed, a pool of constants of kernels, since kernels take seconds
   * to compile. Returns what draws a problem, by the problem's own seed.
   */
  problems(seed: number): (own: number) => fc.Arbitrary<Problem>;
  /** Whole numbers that every problem has. */
  readonly required: readonly string[];
  /**
   * Members of a problem that aren't features, the required numbers among them. They are shrunk by
   * value, never left out.
   */
  readonly sizes: readonly string[];
  /** Groups of features that only mean something together, and are left out together. */
  readonly together?: (problem: Problem) => readonly (readonly string[])[];
}

/** Feature sets of attention in a run. */
export const POOL = 80;

const forward: Suite = {
  about: "attention: every shape, mask, bias and option",
  problems(seed) {
    const pool = featureSets(seed, POOL);
    return (own) => problemsOf(pool[(own >>> 8) % POOL]);
  },
  required: ["M", "N", "D"],
  sizes: ["B", "H", "Hkv", "M", "N", "D", "seed", "variant"],
  together: (problem) =>
    "cuSeqlensQ" in problem
      ? [["cuSeqlensQ", "cuSeqlensKv", "qLengths", "kvLengths", "queryOffset"]]
      : [],
};

const linear: Suite = {
  about: "linear attention: rules, states, masks, chunked and token by token",
  problems(seed) {
    const pool = linearSets(seed, 60);
    return (own) => linearProblemsOf(pool[(own >>> 8) % pool.length]);
  },
  required: ["N", "D"],
  sizes: [
    "B",
    "H",
    "Hkv",
    "Hk",
    "M",
    "N",
    "D",
    "seed",
    "variant",
    "updateRule",
    "causal",
    "normalized",
    "featureMap",
  ],
};

const mha: Suite = {
  about: "multi-head attention: projections, widths, masks of either convention, added keys",
  problems(seed) {
    const pool = mhaSets(seed, 16);
    return (own) => mhaProblemsOf(pool[(own >>> 8) % pool.length]);
  },
  required: ["M", "D", "E"],
  sizes: ["B", "H", "Hkv", "M", "N", "D", "E", "seed"],
  together: () => [["mask", "ignores"]],
};

/** Feature sets of a suite whose kernels take longer to compile. */
const SIMILARITY_POOL = 40;

const additive: Suite = {
  ...forward,
  about: "additive, cosine and normalised scores, with every other option of attention",
  problems(seed) {
    const pool = similaritySets(seed, SIMILARITY_POOL);
    return (own) => problemsOf(pool[(own >>> 8) % SIMILARITY_POOL]);
  },
  sizes: [...forward.sizes, "similarity"],
};

/** Feature sets of attention's gradients in a run. */
const BACKWARD_POOL = 12;

const backward: Suite = {
  ...additive,
  about: "gradients: of attention with every option, and a share of all other operations",
  problems(seed) {
    const pool: readonly fc.Arbitrary<Problem>[] = [
      ...backwardSets(seed, BACKWARD_POOL).map(backwardProblemsOf),
      ...rowGradientSets(seed, 6).map(rowGradientsOf),
      ...linearGradientsOf(seed, 1),
      multiplicativeGradients,
    ];
    return (own) => pool[(own >>> 8) % pool.length];
  },
  required: ["N"],
  sizes: [...additive.sizes, "op", "K", "updateRule", "causal", "normalized", "featureMap"],
};

/** Caches of each kind in a run. */
const CACHES = 2;

const cache: Suite = {
  about:
    "histories of caches of every kind, awaited or not: append, attend, truncate, fork, reorder, calls that are rejected",
  problems(seed) {
    const pool = cacheSets(seed, CACHES);
    return (own) => historiesOf(pool[(own >>> 8) % pool.length]);
  },
  required: ["entries", "D", "maxTokens"],
  sizes: [
    "place",
    "entries",
    "Hkv",
    "G",
    "D",
    "maxTokens",
    "pages",
    "pageSize",
    "window",
    "ring",
    "steps",
    "seed",
    "variant",
  ],
  together: () => [
    ["queries", "rotary", "qkNorm"],
    ["dtype", "groupSize"],
  ],
};

/** Each stands here twice, or they would be rare. */
const SCORE_OPERATIONS = [
  ...(["mergeAttention", "attentionWeights", "topKKeys"] as const),
  ...(["mergeAttention", "attentionWeights", "topKKeys"] as const),
];

const rows: Suite = {
  about:
    "softmax, norms, gelu, copies, projections, positions, merging, weights: axes, strides, magnitudes",
  problems(seed) {
    const pool = [
      ...rowSets(seed, 40).map(rowProblemsOf),
      ...SCORE_OPERATIONS.map(scoreProblemsOf),
    ];
    return (own) => pool[(own >>> 8) % pool.length];
  },
  required: ["M", "N"],
  sizes: ["op", "B", "H", "M", "N", "K", "seed"],
};

export const SUITES: Readonly<Record<SuiteName, Suite>> = {
  forward,
  linear,
  mha,
  additive,
  backward,
  cache,
  rows,
};
