// What sessions are given of their model.

import type { Adapters } from "../adapters/adapters.ts";
import type { Definition } from "../definition.ts";
import type { Weights } from "../weights.ts";
import type { KeyScales } from "./smoothing.ts";

/** What sessions need of a model. */
export interface SessionModel {
  readonly device: GPUDevice;
  readonly definition: Definition;
  readonly weights: Weights;
  /** What keys are smoothed by for caches of integers, measured when it is first needed. */
  keyScales(): Promise<KeyScales>;
  readonly adapters: Adapters;
}
