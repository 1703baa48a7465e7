// A problem of attention's gradients as a caller gives it, and as plans read it.

import { check } from "../../errors.ts";
import type { FunctionGradient } from "../../functions/gradient.ts";
import type { OptionNames, Taken } from "../../given.ts";
import {
  checkedSpec,
  dense,
  expectApart,
  expectShape,
  FLOATS,
  type ResolvedSpec,
  reorder,
  toBhmd,
} from "../../plan/specs.ts";
import type { Extension } from "../../scores/resolve.ts";
import type { Layout, TensorSpec } from "../../types.ts";
import { SCORE_PROBLEM, type ScoreProblem } from "../problem.ts";
import { resolveScores } from "../resolve.ts";
import type { ResolvedScores } from "../resolved.ts";
import { type CapturesAsked, resolveCaptures, type WantedCapture } from "./captures.ts";
import {
  resolveScoreGradients,
  SCORE_GRADIENTS,
  type ScoreGradient,
  type ScoreGradientProblem,
} from "./score_problem.ts";
import {
  resolveSimilarityGradients,
  SIMILARITY_GRADIENTS,
  type SimilarityGradients,
  type SimilaritySpecs,
} from "./similarity_problem.ts";

/**
 * The problem that a plan of gradients is made for: that of attention, with what attention gave,
 * and the gradients that come in and go out.
 */
export interface AttentionBackwardProblem
  extends ScoreProblem,
    ScoreGradientProblem,
    SimilarityGradients<boolean | TensorSpec> {
  /** [B, Hkv, N, Dv] */
  readonly v: TensorSpec;
  /** [B, H, M, Dv]: what attention gave. Default: dense, of the dtype of q. */
  readonly output?: TensorSpec;
  /** [B, H, M] f32: the log-sum-exp that attention gave beside it. Default: dense. */
  readonly lse?: TensorSpec;
  /** [B, H, M, Dv]: the gradient of the output. Default: as the output is. */
  readonly dOutput?: TensorSpec;
  /** [B, H, M] f32: the gradient of the log-sum-exp: `true` for a dense tensor. Default: none. */
  readonly dLse?: boolean | TensorSpec;
  /** [B, H, M, D]: the gradient of q. Default: dense, of the dtype of q. */
  readonly dQ?: TensorSpec;
  /** [B, Hkv, N, D]: the gradient of k. Default: dense, of the dtype of k. */
  readonly dK?: TensorSpec;
  /** [B, Hkv, N, Dv]: the gradient of v. Default: dense, of the dtype of v. */
  readonly dV?: TensorSpec;
  /**
   * The gradients of what the score function captures, by its names: `true` for a dense f32 tensor,
   * or what it will look like. It has the shape of the captured tensor, and [1] for a number.
   * Default none. The option `gradient` of {@link scoreFunction} has to have derivatives by them.
   */
  readonly dCaptures?: CapturesAsked;
  /** Take this row of the tile table of the kernels. For benchmarks and tests. */
  readonly variant?: string;
}

/** The problem after it was read. */
export type TakenBackward = Taken<AttentionBackwardProblem>;

/** The names of all members of a problem. */
export const BACKWARD_PROBLEM: OptionNames<AttentionBackwardProblem & { cache: object }> = {
  ...SCORE_PROBLEM, // a cache among them, which is refused
  ...SCORE_GRADIENTS,
  v: "any",
  output: "any",
  lse: "any",
  dOutput: "any",
  dLse: "any",
  dQ: "any",
  dK: "any",
  dV: "any",
  ...SIMILARITY_GRADIENTS,
  dCaptures: "any",
  variant: "string",
};

/** A checked problem. Tensors are in BHMD order. */
export interface ResolvedBackward extends ResolvedScores {
  readonly v: ResolvedSpec;
  readonly output: ResolvedSpec;
  readonly lse: ResolvedSpec;
  readonly dOutput: ResolvedSpec;
  readonly dLse: ResolvedSpec | undefined;
  readonly dQ: ResolvedSpec;
  readonly dK: ResolvedSpec;
  readonly dV: ResolvedSpec;
  readonly similarityGradients: SimilaritySpecs;
  readonly dCaptures: readonly WantedCapture[];
  readonly variant: string | undefined;
  readonly scoreGradients: readonly ScoreGradient[];
}

/**
 * Throws FoveaError("argument") for keys in a cache: nobody keeps what gradients of theirs would
 * need.
 */
export function refuseCache(label: string, isCache: boolean): void {
  check(
    !isCache,
    "argument",
    () =>
      `${label}: keys in a cache have no gradients. Give k and v of the whole sequence as tensors, and causal: true where each token saw those before it.`,
  );
}

/** Checks a problem and fills in its defaults. Throws FoveaError that names what is wrong. */
export function resolveBackward(
  problem: TakenBackward,
  extension: Extension | undefined,
  gradient: FunctionGradient | undefined,
): ResolvedBackward {
  const { label = "attentionBackward", layout = "bhmd", dLse } = problem;
  refuseCache(label, "cache" in problem && problem.cache !== undefined);
  const scores = resolveScores(label, problem, true, extension);
  const { q, k, v, lseShape, vDim } = scores;
  const place = { label, layout };
  const output = like(place, "output", problem.output, {
    ...q,
    shape: [...lseShape, vDim],
  });
  const result = (name: "dQ" | "dK" | "dV", of: ResolvedSpec) => {
    const spec = like(place, name, problem[name], of);
    expectApart(label, name, spec);
    return spec;
  };
  const perRow = (name: "lse" | "dLse", given: TensorSpec) => {
    const spec = checkedSpec(label, name, given);
    expectShape(label, name, spec, lseShape, "[B, H, M]");
    return spec;
  };
  return {
    ...scores,
    output,
    lse: perRow("lse", problem.lse ?? { shape: lseShape }),
    dOutput: like(place, "dOutput", problem.dOutput, output),
    dLse: dLse ? perRow("dLse", dLse === true ? { shape: lseShape } : dLse) : undefined,
    dQ: result("dQ", q),
    dK: result("dK", k),
    dV: result("dV", v),
    similarityGradients: resolveSimilarityGradients(label, problem, problem.similarity, scores),
    dCaptures: resolveCaptures(label, problem, gradient, scores),
    variant: problem.variant,
    scoreGradients: resolveScoreGradients(scores, problem),
  };
}

/** A checked spec of the shape of another one, by default dense and of its dtype. */
function like(
  { label, layout }: { readonly label: string; readonly layout: Layout },
  name: string,
  given: TensorSpec | undefined,
  { shape, dtype }: ResolvedSpec,
): ResolvedSpec {
  if (!given) return dense(shape, layout, dtype);
  const spec = toBhmd(label, name, given, layout, FLOATS);
  expectShape(label, name, reorder(spec, layout), reorder({ ...spec, shape }, layout).shape);
  return spec;
}
