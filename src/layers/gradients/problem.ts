// The problem of a multi-head layer's gradients: the forward problem, the gradients that come in, and
// those that are asked for.

import type { CapturesAsked } from "../../attention/gradients/captures.ts";
import {
  SCORE_GRADIENTS,
  type ScoreGradientProblem,
} from "../../attention/gradients/score_problem.ts";
import {
  SIMILARITY_GRADIENTS,
  type SimilarityGradients,
} from "../../attention/gradients/similarity_problem.ts";
import type { OptionNames } from "../../given.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import type { TensorSpec } from "../../types.ts";
import {
  MULTI_HEAD_PROBLEM,
  type MultiHeadBindings,
  type MultiHeadProblem,
} from "../multi_head_problem.ts";

/** The names of a layer's gradients; `"parameters"` stands for those of all its weights. */
export type MultiHeadGradient = "dQuery" | "dKey" | "dValue" | "parameters";

/** Something for the parameters of a linear layer: tensors, or what they look like. */
export interface LinearParameters<T> {
  /** [out, in], of any strides. */
  readonly weight?: T;
  /** [out] */
  readonly bias?: T;
}

/** Something for the parameters of a layer, by the names of {@link MultiHeadWeights}. */
export interface MultiHeadParameters<T> {
  readonly query?: LinearParameters<T>;
  readonly key?: LinearParameters<T>;
  readonly value?: LinearParameters<T>;
  readonly output?: LinearParameters<T>;
  readonly biasK?: T;
  readonly biasV?: T;
}

/**
 * The gradients of a layer that a plan is made for: the options of the forward run, the gradients
 * of its results, and what the gradients look like. Those of what options hold are asked for by
 * name, as for {@link attentionBackward}.
 */
export interface MultiHeadBackwardProblem
  extends Omit<MultiHeadProblem, "output" | "lse" | "weights" | "weightsOutput" | "variant">,
    ScoreGradientProblem,
    SimilarityGradients<boolean | TensorSpec> {
  /** [B, M, output width], the gradient of the output. Default: dense, of the query's dtype. */
  readonly dOutput?: TensorSpec;
  /** [B, H, M] f32: the gradient of the log-sum-exp, `true` for a dense tensor. Default: none. */
  readonly dLse?: boolean | TensorSpec;
  /**
   * The gradient of the probabilities before dropout, f32: [B, H, M, N'] of those of each head, or
   * [B, M, N'] of their mean over the heads. The plan then also has 4 bytes in memory for each
   * probability, and for N' x N'. Default: none.
   */
  readonly dWeights?: TensorSpec;
  /**
   * The gradients to compute. Default: all that there are. There is no dKey if there is no key, and
   * no dValue without a value: `dQuery` is then the sum over all uses of the query, and `dKey` that
   * over all uses of the key.
   */
  readonly gradients?: readonly MultiHeadGradient[];
  /** [B, M, query width]. Default: dense, of the dtype of the query. */
  readonly dQuery?: TensorSpec;
  /** [B, N, key width]. Default: dense, of the dtype of the key. */
  readonly dKey?: TensorSpec;
  /** [B, N, value width]. Default: dense, of the dtype of the value. */
  readonly dValue?: TensorSpec;
  /**
   * The gradients of the weights, each of the shape of the weight and of any strides, so that views
   * of one packed tensor are taken, too. Default for each: dense, of the dtype of the weight.
   */
  readonly parameters?: MultiHeadParameters<TensorSpec>;
  /** The gradients of what the score function captures, as for {@link attentionBackward}. */
  readonly dCaptures?: CapturesAsked;
  /** Take this row of the tile table of attention's gradients. For benchmarks and tests. */
  readonly variant?: string;
}

const {
  output: _output,
  lse: _lse,
  weights: _weights,
  weightsOutput: _weightsOutput,
  ...FORWARD
} = MULTI_HEAD_PROBLEM;

/** The names of all members of a problem. */
export const MULTI_HEAD_BACKWARD_PROBLEM: OptionNames<MultiHeadBackwardProblem> = {
  ...FORWARD,
  ...SCORE_GRADIENTS,
  ...SIMILARITY_GRADIENTS,
  dOutput: "any",
  dLse: "any",
  dWeights: "any",
  gradients: "any",
  dQuery: "any",
  dKey: "any",
  dValue: "any",
  parameters: "any",
  dCaptures: "any",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default. The weights are those of the layer.
 */
export interface MultiHeadBackwardBindings
  extends Omit<MultiHeadBindings, "output" | "lse" | "weightsOutput">,
    SimilarityGradients<Tensor>,
    Partial<Record<keyof ScoreGradientProblem, Tensor>> {
  readonly dOutput?: Tensor;
  /** Needed if the plan was made with it, as are the members that follow. */
  readonly dLse?: Tensor;
  readonly dWeights?: Tensor;
  readonly dQuery?: Tensor;
  readonly dKey?: Tensor;
  readonly dValue?: Tensor;
  readonly parameters?: MultiHeadParameters<Tensor>;
  readonly dCaptures?: Readonly<Record<string, Tensor>>;
}
