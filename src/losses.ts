// The public names of losses, metrics, embeddings and dropout; src/index.ts has them all.

export {
  type DropoutBindings,
  type DropoutChoice,
  type DropoutOptions,
  type DropoutPlan,
  type DropoutProblem,
  dropout,
  planDropout,
} from "./operations/dropout.ts";
export {
  type AccuracyBindings,
  type AccuracyOptions,
  type AccuracyPlan,
  type AccuracyProblem,
  accuracy,
  planAccuracy,
} from "./operations/losses/accuracy.ts";
export {
  type ArgmaxBindings,
  type ArgmaxOptions,
  type ArgmaxPlan,
  type ArgmaxProblem,
  argmax,
  planArgmax,
} from "./operations/losses/argmax.ts";
export {
  type BceWithLogitsBindings,
  type BceWithLogitsOptions,
  type BceWithLogitsPlan,
  type BceWithLogitsProblem,
  bceWithLogits,
  planBceWithLogits,
} from "./operations/losses/bce_with_logits.ts";
export {
  type CrossEntropyBindings,
  type CrossEntropyOptions,
  type CrossEntropyPlan,
  type CrossEntropyProblem,
  crossEntropy,
  planCrossEntropy,
} from "./operations/losses/cross_entropy.ts";
export type {
  CrossEntropyInputs,
  CrossEntropySettings,
} from "./operations/losses/cross_entropy_problem.ts";
export type {
  BceWeightBindings,
  LossResult,
  MseBindings,
} from "./operations/losses/element_operations.ts";
export type { BceInputs, MseInputs } from "./operations/losses/element_problem.ts";
export {
  type MseLossOptions,
  type MseLossPlan,
  type MseLossProblem,
  mseLoss,
  planMseLoss,
} from "./operations/losses/mse_loss.ts";
export type { Reduction } from "./operations/losses/reduction.ts";
export {
  type EmbeddingBindings,
  type EmbeddingOptions,
  type EmbeddingPlan,
  type EmbeddingProblem,
  embedding,
  planEmbedding,
} from "./operations/tables/embedding.ts";
