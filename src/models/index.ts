/**
 * `fovea/models`: models of Hugging Face's transformers from their checkpoints.
 *
 * @module
 */

export type { Asked, ModelInputs } from "./definition.ts";
export type { CacheOptions } from "./generation/caches.ts";
export type { Session } from "./generation/session.ts";
export type { SessionOptions } from "./generation/session_options.ts";
export type { Texts } from "./generation/texts.ts";
export { forgetOpfs, opfsSource } from "./opfs_source.ts";
export { type LoadOptions, Model, type ModelResult } from "./model.ts";
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
