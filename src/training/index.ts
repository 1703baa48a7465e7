/**
 * `fovea/training`: programs that are recorded once and replayed, their operations, layers and
 * optimisers.
 *
 * @module
 */

export type { Recording } from "../plan/target.ts";
export { seeded } from "../seeded.ts";
export { type CheckGradientsOptions, checkGradients, type ParameterCheck } from "./check.ts";
export {
  fromSafetensors,
  loadCheckpoint,
  loadParameters,
  type ParametersOptions,
  saveCheckpoint,
  saveParameters,
} from "./checkpoint.ts";
export type { NotFinite } from "./finite.ts";
export { Graph, type ParameterOptions } from "./graph.ts";
export { byInputs, drawn, type Initial } from "./initial.ts";
export {
  attendPacked,
  type EncoderSettings,
  encoderLayer,
  gruLayer,
  layerNormLayer,
  linearLayer,
  lstmLayer,
  meanRows,
  multiHeadLayer,
  type Parameters,
  parametersOf,
  type RecurrentLayerSettings,
  softmaxPool,
  under,
} from "./layers.ts";
export { type AdapterSettings, isAdapter, withAdapters } from "./lora.ts";
export {
  type AttentionSettings,
  attention,
  attentionWeights,
  type SimilaritySettings,
} from "./operations/attention.ts";
export {
  layerNorm,
  linear,
  matmul,
  type NormOptions,
  rmsNorm,
  softmax,
} from "./operations/dense.ts";
export { type DropoutSettings, dropout } from "./operations/dropout.ts";
export {
  activate,
  add,
  broadcast,
  concatenate,
  contiguous,
  multiply,
} from "./operations/elements.ts";
export {
  type LinearAttentionSettings,
  linearAttention,
} from "./operations/linear_attention.ts";
export {
  bceWithLogits,
  type CrossEntropySettings,
  crossEntropy,
  mseLoss,
} from "./operations/losses.ts";
export { patchEmbedding, patches } from "./operations/patches.ts";
export { type PositionSettings, positionEncoding } from "./operations/positions.ts";
export {
  gru,
  lstm,
  type RecurrentResult,
  type RecurrentSettings,
  type RecurrentValues,
} from "./operations/recurrent.ts";
export { type RotarySettings, rotary } from "./operations/rotary.ts";
export { type EmbeddingSettings, embedding } from "./operations/tables.ts";
export { readOpfs, removeOpfs, writeOpfs } from "./opfs.ts";
export type { NamedGroup, ProgramOptimizer } from "./optimizers/by_name.ts";
export { planOptimizer } from "./optimizers/optimizer.ts";
export type {
  AdamWOptions,
  ClipOptions,
  OptimizerGroupOptions,
  OptimizerKind,
  OptimizerOptions,
  OptimizerProblem,
} from "./optimizers/options.ts";
export { OptimizerPlan, type OptimizerState } from "./optimizers/plan.ts";
export type { Schedule } from "./optimizers/schedule.ts";
export { type Batch, Program, type ProgramBytes } from "./program.ts";
export { type ProgramOptions, type Results, recordProgram } from "./record.ts";
export type { RunSettings } from "./run_settings.ts";
export { Training, type TrainingOptions } from "./session.ts";
export { type Recorder, type Step, Value } from "./value.ts";
