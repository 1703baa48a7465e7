/**
 * `fovea/models`: models of Hugging Face's transformers from their checkpoints.
 *
 * @module
 */

export type { Asked, ModelInputs } from "./definition.ts";
export {
  type BeamSearchOptions,
  beamSearch,
  type FoundText,
} from "./generation/beam_search.ts";
export type { CacheOptions } from "./generation/caches.ts";
export { generate } from "./generation/generate.ts";
export type { GeneratedToken, TokenResult } from "./generation/line.ts";
export type { GenerateOptions } from "./generation/options.ts";
export type { Prompt } from "./generation/prompt.ts";
export type { Session } from "./generation/session.ts";
export type { SessionOptions, SessionState } from "./generation/session_options.ts";
export type { Texts } from "./generation/texts.ts";
export type { Tokenizer } from "./generation/tokenizer.ts";
export type { WeightOptions } from "./integers.ts";
export { logMel } from "./log_mel.ts";
export { type LoadOptions, Model, type ModelResult } from "./model.ts";
export { forgetOpfs, opfsSource } from "./opfs_source.ts";
export type { SamplingSettings } from "./sampling/options.ts";
export {
  planSampling,
  type SamplingBindings,
  type SamplingPlan,
  type SamplingProblem,
} from "./sampling/sampling.ts";
export {
  planTopTokens,
  type TopTokensBindings,
  type TopTokensPlan,
  type TopTokensProblem,
} from "./sampling/top_tokens.ts";
export {
  bytesSource,
  type FileSource,
  fileSource,
  type UrlOptions,
  urlSource,
} from "./source.ts";
export type { OnProgress } from "./weights.ts";
