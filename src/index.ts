export {
  type AdditiveLayer,
  type AdditiveOptions,
  type AdditiveProblem,
  additiveAttention,
  planAdditiveAttention,
} from "./attention/additive.ts";
export { type AttentionOptions, type AttentionResult, attention } from "./attention/attention.ts";
export { type AttentionBindings, AttentionPlan } from "./attention/bindings.ts";
export type { KvSourceOwner } from "./attention/kv_source.ts";
export { type MergeOptions, MergePlan, mergeAttention, planMerge } from "./attention/merge.ts";
export type { MergeBindings, MergeProblem, PartialAttention } from "./attention/merge_problem.ts";
export { planAttention } from "./attention/plan_attention.ts";
export { prewarm } from "./attention/prewarm.ts";
export type {
  AttentionProblem,
  Cached,
  ScoreProblem,
  TunedAttention,
  TunedCandidate,
} from "./attention/problem.ts";
export {
  attentionWeights,
  planAttentionWeights,
  planTopKKeys,
  type TopKOptions,
  type TopKResult,
  topKKeys,
  type WeightsOptions,
} from "./attention/weights.ts";
export type {
  Chosen,
  TopKeysProblem,
  WeightsProblem,
  WeightsStage,
} from "./attention/weights_problem.ts";
export type { CacheAppendPlan } from "./cache/append.ts";
export type { AppendBindings, AppendProblem } from "./cache/append_problem.ts";
export type { AppendOptions } from "./cache/append_queue.ts";
export { KvCache } from "./cache/contiguous.ts";
export { createKvCache } from "./cache/create.ts";
export type {
  CacheDtype,
  ForkOptions,
  KvCacheOptions,
  QkNorm,
  RowOptions,
} from "./cache/options.ts";
export { PagedBatch } from "./cache/paged/batch.ts";
export { createPagedKvCache } from "./cache/paged/create.ts";
export type { PagedKvCacheOptions } from "./cache/paged/options.ts";
export { PagedKvCache } from "./cache/paged/paged.ts";
export { FoveaError, type FoveaErrorCode } from "./errors.ts";
export type {
  AttentionFunction,
  Captures,
  MaskFunction,
  ProbabilityFunction,
  ScoreFunction,
} from "./functions/attention_function.ts";
export {
  type BlockKind,
  BlockMask,
  type BlockMaskOptions,
  blockMaskOf,
} from "./functions/block_mask.ts";
export type { CapturedNumber } from "./functions/captures.ts";
export { allOf, anyOf } from "./functions/combine.ts";
export { createBlockMask } from "./functions/create_block_mask.ts";
export {
  type FunctionOptions,
  maskFunction,
  probabilityFunction,
  type ScoreFunctionOptions,
  scoreFunction,
} from "./functions/functions.ts";
export {
  causalMask,
  chunkMask,
  dilatedWindow,
  documentMask,
  globalWindow,
  neighborhood2d,
  prefixLm,
  slidingWindow,
} from "./functions/masks.ts";
export {
  alibiScore,
  alibiSlopes,
  softcapScore,
  type T5Table,
  t5Score,
} from "./functions/scores.ts";
export type { NumberArray, Numbers } from "./given.ts";
export {
  deviceDescriptor,
  type RequestDeviceOptions,
  release,
  requestFoveaDevice,
} from "./gpu/device.ts";
export type { NestedNumbers, TensorData, TensorValues, ValuesOf } from "./gpu/elements.ts";
export { tensor } from "./gpu/make_tensor.ts";
export { type FloatTensor, Tensor } from "./gpu/tensor.ts";
export type { TensorOptions } from "./gpu/tensor_options.ts";
export { createGpuTimer, type GpuTimer, type TimingSource } from "./gpu/timing.ts";
export * from "./gradients.ts";
export type { FunctionKind } from "./kernels/slots.ts";
export type { BooleanMasks } from "./layers/boolean_masks.ts";
export { type PackedQkvSizes, splitHeads, unpackQkv } from "./layers/heads.ts";
export {
  MultiHeadAttention,
  type MultiHeadForwardOptions,
  type MultiHeadResult,
} from "./layers/multi_head.ts";
export {
  type KerasMultiHead,
  type KerasSizes,
  multiHeadWeights,
  type OnnxAttention,
  type OnnxLinear,
  type OnnxMatMuls,
} from "./layers/multi_head_layouts.ts";
export { MultiHeadPlan } from "./layers/multi_head_plan.ts";
export type {
  MultiHeadBindings,
  MultiHeadOptions,
  MultiHeadProblem,
} from "./layers/multi_head_problem.ts";
export type { MultiHeadSizes } from "./layers/multi_head_sizes.ts";
export type { PyTorchMultiHead, PyTorchOptions } from "./layers/multi_head_state.ts";
export type {
  LinearWeights,
  MultiHeadWeights,
  NewMultiHead,
  WeightSource,
} from "./layers/multi_head_weights.ts";
export {
  type MultiplicativeOptions,
  type MultiplicativeProblem,
  multiplicativeAttention,
  planMultiplicativeAttention,
} from "./layers/multiplicative.ts";
export { type MultiplicativeBindings, MultiplicativePlan } from "./layers/multiplicative_plan.ts";
export { type GruPlan, gru, planGru } from "./layers/recurrent/gru.ts";
export {
  type GruBindings,
  type GruOptions,
  type GruResult,
  type LstmBindings,
  type LstmOptions,
  type LstmPlan,
  type LstmResult,
  lstm,
  planLstm,
} from "./layers/recurrent/lstm.ts";
export { RecurrentPlan } from "./layers/recurrent/plan.ts";
export type {
  GruProblem,
  LstmProblem,
  RecurrentWeightName,
  RecurrentWeights,
} from "./layers/recurrent/problem.ts";
export type { StateDict } from "./layers/state_dict.ts";
export {
  type LinearAttentionOptions,
  type LinearAttentionResult,
  linearAttention,
  planLinearAttention,
} from "./linear/linear.ts";
export type {
  LinearAttentionProblem,
  LinearAttentionSettings,
  LinearTensor,
  UpdateRule,
} from "./linear/options.ts";
export { type LinearAttentionBindings, LinearAttentionPlan } from "./linear/plan.ts";
export * from "./losses.ts";
export {
  type ActivateOptions,
  activate,
  type GeluOptions,
  gelu,
  type PointwisePlan,
  planPointwise,
} from "./operations/activations.ts";
export {
  type LayerNormOptions,
  type LayerNormPlan,
  type LayerNormResult,
  layerNorm,
  planLayerNorm,
  rmsNorm,
} from "./operations/layer_norm.ts";
export type { LayerNormBindings, LayerNormProblem } from "./operations/layer_norm_problem.ts";
export { addBias, copyTensor, type PointwiseOptions } from "./operations/pointwise.ts";
export type {
  Activation,
  PointwiseBindings,
  PointwiseProblem,
} from "./operations/pointwise_problem.ts";
export type { IntegerDtype, WeightQuantisation } from "./operations/products/weight_integers.ts";
export {
  type ProjectionOptions,
  ProjectionPlan,
  planProjection,
  project,
} from "./operations/projection.ts";
export type { ProjectionBindings, ProjectionProblem } from "./operations/projection_problem.ts";
export {
  logSoftmax,
  planSoftmax,
  type SoftmaxBindings,
  type SoftmaxOptions,
  type SoftmaxPlan,
  type SoftmaxProblem,
  softmax,
} from "./operations/softmax.ts";
export { Plan as OperationPlan } from "./plan/plan.ts";
export type { RunOptions } from "./plan/run.ts";
export type { PerBatch, PerHead } from "./plan/specs.ts";
export type { EncodeTarget } from "./plan/target.ts";
export {
  type GatedPositionBiasOptions,
  gatedPositionBias,
  type PositionBiasPlan,
  planPositionBias,
  type RelativePositionBiasOptions,
  relativePositionBias,
} from "./positions/bias.ts";
export type {
  BiasGates,
  PositionBiasBindings,
  PositionBiasProblem,
} from "./positions/bias_problem.ts";
export { type RelativeBias, type T5BucketOptions, t5Buckets } from "./positions/buckets.ts";
export {
  type PositionEncodingOptions,
  PositionEncodingPlan,
  planPositionEncoding,
  positionEncoding,
} from "./positions/encoding.ts";
export type {
  PositionEncodingBindings,
  PositionEncodingProblem,
} from "./positions/encoding_problem.ts";
export type { PositionOptions } from "./positions/positions.ts";
export { planRotary, RotaryPlan, type RotaryRunOptions, rotary } from "./positions/rotary.ts";
export {
  type RotaryFrequencies,
  type RotaryOptions,
  rotaryFrequencies,
} from "./positions/rotary_options.ts";
export type { RotaryBindings, RotaryProblem } from "./positions/rotary_problem.ts";
export type { RotaryScaling } from "./positions/rotary_scaling_options.ts";
export { type SinusoidalOptions, sinusoidalPositions } from "./positions/sinusoidal.ts";
export type {
  AdditiveSimilarity,
  Dropout,
  NormalizedSimilarity,
  PerColumn,
  ScoreOptions,
  Similarity,
  SimilarityOptions,
} from "./scores/options.ts";
export { type TuneOptions, tune } from "./tune/tune.ts";
export type {
  CausalAlignment,
  Dtype,
  FloatDtype,
  Layout,
  MaskOptions,
  TensorSpec,
} from "./types.ts";
