// The public names of gradients; src/index.ts has them all.

export {
  type AttentionBackwardOptions,
  type AttentionGradients,
  attentionBackward,
  planAttentionBackward,
} from "./attention/gradients/backward.ts";
export type {
  AttentionBackwardBindings,
  AttentionBackwardPlan,
} from "./attention/gradients/bindings.ts";
export type { CapturesAsked } from "./attention/gradients/captures.ts";
export {
  type CheckGradientsOptions,
  checkGradients,
  type GradientsCheck,
} from "./attention/gradients/check.ts";
export {
  type MergeBackwardOptions,
  type MergeBackwardPlan,
  type MergeGradients,
  mergeAttentionBackward,
  planMergeBackward,
} from "./attention/gradients/merge_backward.ts";
export type {
  MergeBackwardBindings,
  MergeBackwardProblem,
  PartialGradients,
} from "./attention/gradients/merge_problem.ts";
export type { AttentionBackwardProblem } from "./attention/gradients/problem.ts";
export type {
  ScoreGradientName,
  ScoreGradientProblem,
} from "./attention/gradients/score_problem.ts";
export type {
  SimilarityGradient,
  SimilarityGradients,
} from "./attention/gradients/similarity_problem.ts";
export {
  type CheckGradientOptions,
  checkGradient,
  type GradientCheck,
} from "./functions/check_gradient.ts";
export {
  type MultiHeadBackwardOptions,
  type MultiHeadGradients,
  multiHeadAttentionBackward,
  planMultiHeadAttentionBackward,
} from "./layers/gradients/multi_head_backward.ts";
export type { MultiHeadBackwardPlan } from "./layers/gradients/plan.ts";
export type {
  LinearParameters,
  MultiHeadBackwardBindings,
  MultiHeadBackwardProblem,
  MultiHeadGradient,
  MultiHeadParameters,
} from "./layers/gradients/problem.ts";
export {
  type MultiplicativeBackwardOptions,
  type MultiplicativeBackwardProblem,
  type MultiplicativeGradients,
  multiplicativeAttentionBackward,
  planMultiplicativeAttentionBackward,
} from "./layers/multiplicative_backward.ts";
export {
  type MultiplicativeBackwardBindings,
  MultiplicativeBackwardPlan,
} from "./layers/multiplicative_backward_plan.ts";
export type {
  GruBackwardBindings,
  GruBackwardProblem,
  GruGradient,
  LstmBackwardBindings,
  LstmBackwardProblem,
  LstmGradient,
} from "./layers/recurrent/backward_problem.ts";
export {
  type GruBackwardPlan,
  gruBackward,
  planGruBackward,
} from "./layers/recurrent/gru_backward.ts";
export {
  type GruBackwardOptions,
  type GruGradients,
  type LstmBackwardOptions,
  type LstmBackwardPlan,
  type LstmGradients,
  lstmBackward,
  planLstmBackward,
} from "./layers/recurrent/lstm_backward.ts";
export type {
  LinearAttentionBackwardProblem,
  LinearAttentionBackwardSettings,
  LinearBackwardTensor,
  LinearGradient,
} from "./linear/backward_options.ts";
export {
  type LinearAttentionBackwardBindings,
  type LinearAttentionBackwardOptions,
  type LinearAttentionBackwardPlan,
  type LinearAttentionBackwardResult,
  linearAttentionBackward,
  planLinearAttentionBackward,
} from "./linear/linear_backward.ts";
export {
  type ActivationBackwardOptions,
  type ActivationBackwardPlan,
  activationBackward,
  planActivationBackward,
} from "./operations/activation_backward.ts";
export type {
  ActivationBackwardBindings,
  ActivationBackwardProblem,
  ActivationGradient,
} from "./operations/activation_backward_problem.ts";
export {
  type LayerNormBackwardOptions,
  type LayerNormBackwardPlan,
  type LayerNormGradients,
  layerNormBackward,
  planLayerNormBackward,
  rmsNormBackward,
} from "./operations/layer_norm_backward.ts";
export type {
  LayerNormBackwardBindings,
  LayerNormBackwardProblem,
  LayerNormGradient,
} from "./operations/layer_norm_backward_problem.ts";
export {
  type BceWithLogitsBackwardBindings,
  type BceWithLogitsBackwardOptions,
  type BceWithLogitsBackwardPlan,
  type BceWithLogitsBackwardProblem,
  bceWithLogitsBackward,
  planBceWithLogitsBackward,
} from "./operations/losses/bce_with_logits_backward.ts";
export {
  type CrossEntropyBackwardBindings,
  type CrossEntropyBackwardOptions,
  type CrossEntropyBackwardPlan,
  type CrossEntropyBackwardProblem,
  type CrossEntropyGradients,
  crossEntropyBackward,
  planCrossEntropyBackward,
} from "./operations/losses/cross_entropy_backward.ts";
export type {
  LossGradient,
  LossGradientResults,
  LossGradients,
  MseBackwardBindings,
} from "./operations/losses/element_operations.ts";
export {
  type MseLossBackwardOptions,
  type MseLossBackwardPlan,
  type MseLossBackwardProblem,
  mseLossBackward,
  planMseLossBackward,
} from "./operations/losses/mse_loss_backward.ts";
export {
  type ProjectionBackwardOptions,
  type ProjectionBackwardPlan,
  planProjectionBackward,
  projectionBackward,
} from "./operations/projection_backward.ts";
export type {
  ProjectionBackwardBindings,
  ProjectionBackwardProblem,
  ProjectionGradient,
} from "./operations/projection_backward_problem.ts";
export {
  logSoftmaxBackward,
  planSoftmaxBackward,
  type SoftmaxBackwardBindings,
  type SoftmaxBackwardOptions,
  type SoftmaxBackwardPlan,
  type SoftmaxBackwardProblem,
  softmaxBackward,
} from "./operations/softmax_backward.ts";
export {
  type EmbeddingBackwardBindings,
  type EmbeddingBackwardOptions,
  type EmbeddingBackwardPlan,
  type EmbeddingBackwardProblem,
  embeddingBackward,
  planEmbeddingBackward,
} from "./operations/tables/embedding_backward.ts";
export {
  type GatedPositionBiasBackwardOptions,
  gatedPositionBiasBackward,
  type PositionBiasBackwardPlan,
  type PositionBiasGradients,
  planPositionBiasBackward,
  type RelativePositionBiasBackwardOptions,
  relativePositionBiasBackward,
} from "./positions/bias_backward.ts";
export type {
  PositionBiasBackwardBindings,
  PositionBiasBackwardProblem,
  PositionBiasGradient,
} from "./positions/bias_backward_problem.ts";
export {
  type PositionEncodingBackwardOptions,
  type PositionEncodingBackwardPlan,
  type PositionEncodingGradients,
  planPositionEncodingBackward,
  positionEncodingBackward,
} from "./positions/encoding_backward.ts";
export type {
  PositionEncodingBackwardBindings,
  PositionEncodingBackwardProblem,
  PositionEncodingGradient,
} from "./positions/encoding_backward_problem.ts";
export {
  planRotaryBackward,
  type RotaryBackwardBindings,
  type RotaryBackwardOptions,
  type RotaryBackwardPlan,
  type RotaryBackwardProblem,
  rotaryBackward,
} from "./positions/rotary_backward.ts";
