export { normalCdf, type ReferenceActivation } from "./activations.ts";
export { attention, type ReferenceResult } from "./attention.ts";
export { relativeBucket } from "./bucket.ts";
export {
  dequantiseRow,
  quantisedWords,
  quantiseRow,
  type ReferenceNormOptions,
  type ReferenceQuantisation,
  ringRow,
  rmsNorm,
} from "./cache.ts";
export { largest, type WorstElement, worstElement } from "./compare.ts";
export { dropoutKeeps, threefry2x32 } from "./dropout.ts";
export {
  dropout,
  embedding,
  embeddingBackward,
  type ReferenceEmbeddingOptions,
} from "./embedding.ts";
export {
  attentionBackward,
  type ReferenceAttentionGradients,
  type ReferenceBackwardOptions,
} from "./gradients/attention_backward.ts";
export {
  linearAttentionBackward,
  type ReferenceLinearBackwardOptions,
} from "./gradients/linear_backward.ts";
export {
  multiHeadAttentionBackward,
  type ReferenceLinearGradients,
  type ReferenceMultiHeadBackwardOptions,
  type ReferenceMultiHeadGradients,
} from "./gradients/multi_head_backward.ts";
export {
  layerNormBackward,
  type ReferenceLayerNormBackwardOptions,
} from "./gradients/normalise_backward.ts";
export {
  gruBackward,
  lstmBackward,
  type ReferenceRecurrentBackwardOptions,
  type ReferenceRecurrentGradients,
} from "./gradients/recurrent_backward.ts";
export type { ReferenceScoreGradients } from "./gradients/score_gradients.ts";
export { linearAttention, type ReferenceLinearResult } from "./linear.ts";
export type { ReferenceLinearOptions } from "./linear_problem.ts";
export {
  argmax,
  crossEntropy,
  crossEntropyBackward,
  elementLoss,
  elementLossBackward,
  type ReferenceCrossEntropyOptions,
  type ReferenceLossOptions,
} from "./losses.ts";
export {
  mergeAttention,
  mergeAttentionBackward,
  type ReferenceMergeOptions,
  type ReferencePartial,
} from "./merge.ts";
export { multiHeadAttention, type ReferenceMultiHeadResult } from "./multi_head.ts";
export type {
  ReferenceLinear,
  ReferenceMultiHead,
  ReferenceMultiHeadInputs,
  ReferenceMultiHeadOptions,
} from "./multi_head_rows.ts";
export {
  multiplicativeAttention,
  multiplicativeAttentionBackward,
  type ReferenceMultiplicative,
} from "./multiplicative.ts";
export {
  layerNorm,
  type ReferenceLayerNormOptions,
  type ReferenceSoftmaxOptions,
  softmaxAlong,
  softmaxAlongBackward,
} from "./normalise.ts";
export type {
  ReferenceCapturedDerivative,
  ReferenceColumns,
  ReferenceOptions,
  ReferencePosition,
  ReferenceRelativeBias,
  ReferenceScoreGradient,
  ReferenceSimilarity,
  ReferenceTensor,
} from "./options.ts";
export {
  pointwise,
  pointwiseBackward,
  type ReferencePointwiseOptions,
} from "./pointwise.ts";
export { positionBias, positionBiasBackward, type ReferenceBiasOptions } from "./position_bias.ts";
export {
  positionEncoding,
  positionEncodingBackward,
  type ReferenceEncodingOptions,
  sinusoidalEncoding,
} from "./positions.ts";
export { project, projectBackward } from "./projection.ts";
export {
  gru,
  lstm,
  type ReferenceRecurrentOptions,
  type ReferenceRecurrentResult,
  type ReferenceRecurrentWeights,
} from "./recurrent.ts";
export {
  type ReferenceRotaryOptions,
  type ReferenceRotaryScaling,
  rotary,
  rotaryBackward,
  rotaryFrequencies,
} from "./rotary.ts";
export {
  chooseToken,
  type ReferenceSamplingOptions,
  type ReferenceTopTokens,
  samplingProbabilities,
  topTokens,
  uniformOfDraw,
} from "./sampling.ts";
export type { ScoreStage } from "./scores.ts";
export {
  optimizer,
  orthogonalised,
  type ReferenceOptimizer,
  type ReferenceOptimizerOptions,
  type ReferenceOptimizerProblem,
  type ReferenceUpdate,
} from "./training/optimizers.ts";
export { type ReferenceSchedule, rateFactor } from "./training/schedules.ts";
export {
  attentionScores,
  type ReferenceScoreOptions,
  type ReferenceTopK,
  topKKeys,
} from "./weights.ts";
