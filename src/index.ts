export {
  type AdditiveLayer,
  type AdditiveOptions,
  type AdditiveProblem,
  additiveAttention,
  planAdditiveAttention,
} from "./attention/additive.ts";
export type { AppendOptions } from "./attention/append_queue.ts";
export { type AttentionOptions, type AttentionResult, attention } from "./attention/attention.ts";
export type {
  AttentionFunction,
  Captures,
  MaskFunction,
  ProbabilityFunction,
  ScoreFunction,
} from "./attention/attention_function.ts";
export {
  type BlockKind,
  BlockMask,
  type BlockMaskOptions,
  blockMaskOf,
  createBlockMask,
} from "./attention/block_mask.ts";
export { type T5BucketOptions, t5Buckets } from "./attention/buckets.ts";
export { createKvCache, type ForkOptions, KvCache } from "./attention/cache.ts";
export type { CacheAppendPlan } from "./attention/cache_append.ts";
export type { AppendBindings, AppendProblem } from "./attention/cache_append_problem.ts";
export type { CacheDtype, KvCacheOptions, QkNorm, RowOptions } from "./attention/cache_options.ts";
export type { CapturedNumber } from "./attention/captures.ts";
export { allOf, anyOf } from "./attention/combine.ts";
export {
  maskFunction,
  probabilityFunction,
  scoreFunction,
} from "./attention/functions.ts";
export type { KvSourceOwner } from "./attention/kv_source.ts";
export {
  type LayerNormOptions,
  type LayerNormPlan,
  type LayerNormResult,
  layerNorm,
  planLayerNorm,
  rmsNorm,
} from "./attention/layer_norm.ts";
export type { LayerNormBindings, LayerNormProblem } from "./attention/layer_norm_problem.ts";
export {
  causalMask,
  chunkMask,
  dilatedWindow,
  documentMask,
  globalWindow,
  neighborhood2d,
  prefixLm,
  slidingWindow,
} from "./attention/library.ts";
export { alibiScore, alibiSlopes, softcapScore, type T5Table, t5Score } from "./attention/library_scores.ts";
export {
  type LinearAttentionOptions,
  type LinearAttentionResult,
  linearAttention,
  planLinearAttention,
} from "./attention/linear.ts";
export type {
  LinearAttentionProblem,
  LinearAttentionSettings,
  LinearTensor,
  UpdateRule,
} from "./attention/linear_options.ts";
export { type LinearAttentionBindings, LinearAttentionPlan } from "./attention/linear_plan.ts";
export type { BooleanMasks } from "./attention/masks.ts";
export { type MergeOptions, MergePlan, mergeAttention, planMerge } from "./attention/merge.ts";
export type { MergeBindings, MergeProblem, PartialAttention } from "./attention/merge_problem.ts";
export {
  MultiHeadAttention,
  type MultiHeadForwardOptions,
  type MultiHeadResult,
} from "./attention/multi_head.ts";
export {
  type KerasMultiHead,
  type KerasSizes,
  multiHeadWeights,
  type OnnxAttention,
  type OnnxLinear,
  type OnnxMatMuls,
} from "./attention/multi_head_layouts.ts";
export { MultiHeadPlan } from "./attention/multi_head_plan.ts";
export type {
  MultiHeadBindings,
  MultiHeadOptions,
  MultiHeadProblem,
  MultiHeadSizes,
} from "./attention/multi_head_problem.ts";
export type { PyTorchMultiHead, PyTorchOptions } from "./attention/multi_head_state.ts";
export type { LinearWeights, MultiHeadWeights, NewMultiHead, WeightSource } from "./attention/multi_head_weights.ts";
export {
  type MultiplicativeBindings,
  type MultiplicativeOptions,
  MultiplicativePlan,
  type MultiplicativeProblem,
  multiplicativeAttention,
  planMultiplicativeAttention,
} from "./attention/multiplicative.ts";
export { OperationPlan } from "./attention/one_kernel.ts";
export type { AttentionBindings } from "./attention/operands.ts";
export type { Dropout, PerBatch, PerHead, RelativeBias, ScoreOptions } from "./attention/options.ts";
export { PagedBatch } from "./attention/paged_batch.ts";
export { createPagedKvCache, PagedKvCache } from "./attention/paged_cache.ts";
export type { PagedKvCacheOptions } from "./attention/paged_options.ts";
export { AttentionPlan } from "./attention/plan.ts";
export { planAttention } from "./attention/plan_attention.ts";
export {
  type Activation,
  addBias,
  copyTensor,
  type GeluOptions,
  gelu,
  type PointwiseBindings,
  type PointwiseOptions,
  type PointwisePlan,
  type PointwiseProblem,
  planPointwise,
} from "./attention/pointwise.ts";
export {
  type BiasGates,
  type GatedPositionBiasOptions,
  gatedPositionBias,
  type PositionBiasBindings,
  type PositionBiasPlan,
  type PositionBiasProblem,
  planPositionBias,
  type RelativePositionBiasOptions,
  relativePositionBias,
} from "./attention/position_bias.ts";
export {
  type PositionEncodingOptions,
  PositionEncodingPlan,
  planPositionEncoding,
  positionEncoding,
} from "./attention/position_encoding.ts";
export type { PositionEncodingBindings, PositionEncodingProblem } from "./attention/position_encoding_problem.ts";
export type { PositionOptions } from "./attention/positions.ts";
export { prewarm } from "./attention/prewarm.ts";
export type { AttentionProblem, Cached, ScoreProblem } from "./attention/problem.ts";
export { type ProjectionOptions, ProjectionPlan, planProjection, project } from "./attention/projection.ts";
export type { ProjectionBindings, ProjectionProblem } from "./attention/projection_problem.ts";
export { planRotary, RotaryPlan, type RotaryRunOptions, rotary } from "./attention/rotary.ts";
export { type RotaryOptions, rotaryFrequencies } from "./attention/rotary_options.ts";
export type { RotaryBindings, RotaryProblem } from "./attention/rotary_problem.ts";
export type { RotaryScaling } from "./attention/rotary_scaling.ts";
export type { RunOptions } from "./attention/run.ts";
export type {
  AdditiveSimilarity,
  NormalizedSimilarity,
  PerColumn,
  Similarity,
  SimilarityOptions,
} from "./attention/similarity.ts";
export { type SinusoidalOptions, sinusoidalPositions } from "./attention/sinusoidal.ts";
export {
  logSoftmax,
  planSoftmax,
  type SoftmaxBindings,
  type SoftmaxOptions,
  type SoftmaxPlan,
  type SoftmaxProblem,
  softmax,
} from "./attention/softmax.ts";
export type { StateDict } from "./attention/state_dict.ts";
export type { EncodeTarget } from "./attention/target.ts";
export { type TuneOptions, tune } from "./attention/tune.ts";
export type { TunedAttention, TunedCandidate } from "./attention/tuned.ts";
export { type PackedQkvSizes, splitHeads, unpackQkv } from "./attention/views.ts";
export {
  attentionWeights,
  planAttentionWeights,
  planTopKKeys,
  type TopKOptions,
  type TopKResult,
  topKKeys,
  type WeightsOptions,
} from "./attention/weights.ts";
export type { Chosen, TopKeysProblem, WeightsProblem, WeightsStage } from "./attention/weights_problem.ts";
export { FoveaError, type FoveaErrorCode } from "./errors.ts";
export type { Numbers } from "./given.ts";
export { deviceDescriptor, type RequestDeviceOptions, release, requestFoveaDevice } from "./gpu/device.ts";
export type { NestedNumbers, TensorData, TensorValues, ValuesOf } from "./gpu/elements.ts";
export { type FloatTensor, Tensor, tensor } from "./gpu/tensor.ts";
export type { TensorOptions } from "./gpu/tensor_options.ts";
export { createGpuTimer, type GpuTimer, type TimingSource } from "./gpu/timing.ts";
export type { FunctionKind } from "./kernels/slots.ts";
export type { CausalAlignment, Dtype, FloatDtype, Layout, MaskOptions, TensorSpec } from "./types.ts";
