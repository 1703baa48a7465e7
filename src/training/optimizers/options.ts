// The options of an optimiser: which algorithm updates which parameters, and with which settings.

import type { OptionNames } from "../../given.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import type { Schedule } from "./schedule.ts";

/** The algorithms. */
export type OptimizerKind = "SGD" | "Adam" | "AdamW" | "Lion" | "Muon";

/** The settings of Adam's algorithm with weight decay that is apart from the gradient. */
export interface AdamWOptions {
  /** Learning rate, which a schedule multiplies. Default 1e-3. */
  readonly lr?: number;
  /** Decays of the first and the second moment, each from 0 up to below 1. Default [0.9, 0.999]. */
  readonly betas?: readonly [number, number];
  /** Added to the root of the second moment. Default 1e-8. */
  readonly eps?: number;
  /** The parameter is multiplied by 1 - rate * weightDecay. Default 0.01. */
  readonly weightDecay?: number;
  /** Divide by the largest second moment of all updates (AMSGrad). Default false. */
  readonly amsgrad?: boolean;
}

/** The settings of an algorithm. One that the algorithm does not have is refused. */
export interface OptimizerOptions {
  /** Learning rate, which a schedule multiplies. Default 1e-3; of Lion 1e-4. */
  readonly lr?: number;
  /**
   * Adam, AdamW, Lion: decays of the first and the second moment, each from 0 up to below 1; of
   * Lion, those of the momentum for the sign and for the next update. Default [0.9, 0.999]; of Lion
   * [0.9, 0.99].
   */
  readonly betas?: readonly [number, number];
  /**
   * Adam, AdamW: added to the root of the second moment. Default 1e-8. Muon: the least norm that a
   * matrix is divided by. Default 1e-7.
   */
  readonly eps?: number;
  /**
   * SGD, Adam: weightDecay * parameter is added to the gradient. Default 0. AdamW, Lion, Muon: the
   * parameter is multiplied by 1 - rate * weightDecay. Default 0.01, 0 and 0.1.
   */
  readonly weightDecay?: number;
  /** Adam, AdamW: divide by the largest second moment of all updates. Default false. */
  readonly amsgrad?: boolean;
  /** SGD, Muon: decay of the momentum. Default 0 for SGD, 0.95 for Muon. */
  readonly momentum?: number;
  /** SGD: the momentum takes 1 - dampening of a gradient, from the second update on. Default 0. */
  readonly dampening?: number;
  /** SGD, Muon: Nesterov's momentum. Default false for SGD, true for Muon. */
  readonly nesterov?: boolean;
  /** Muon: Newton-Schulz steps, from 1 to 100. Default 5. */
  readonly nsSteps?: number;
  /** Muon: a, b, c of a step X = (a I + b A + c A^2) X, A = X X^T. Default [3.4445, -4.775, 2.0315]. */
  readonly nsCoefficients?: readonly [number, number, number];
  /**
   * Muon: factor of the rate for a matrix [rows, columns]. `"original"`: sqrt(max(1, rows /
   * columns)); `"match_rms_adamw"`: 0.2 sqrt(max(rows, columns)), so that rates of AdamW fit.
   * Default `"original"`.
   */
  readonly adjustLr?: "original" | "match_rms_adamw";
  /** Muon: the settings of AdamW, which updates parameters that do not have two axes. */
  readonly adamw?: AdamWOptions;
}

/** A group of parameters with settings of its own. */
export interface OptimizerGroupOptions extends OptimizerOptions {
  /** Which parameters, by their places in the optimiser's list. */
  readonly parameters: readonly number[];
  /**
   * The algorithm. Default: that of the optimiser, with whose settings the group begins. A group
   * with another algorithm begins with the defaults of that one.
   */
  readonly kind?: OptimizerKind;
}

/** Clipping of gradients by the norm of all of them together. */
export interface ClipOptions {
  /**
   * All gradients are multiplied by min(1, maxNorm / (norm + 1e-6)), as
   * torch.nn.utils.clip_grad_norm_ does. Infinity only measures the norm.
   */
  readonly maxNorm: number;
}

/** What an optimiser is made for. The settings at this level are those of all parameters. */
export interface OptimizerProblem extends OptimizerOptions {
  /** The algorithm. */
  readonly kind: OptimizerKind;
  /**
   * f32 tensors of any shape, dense, none of which share elements. They may be views: tensors in
   * one buffer, whose gradients are in one buffer, too, are updated by one dispatch.
   */
  readonly parameters: readonly Tensor[];
  /**
   * The gradient of each parameter: f32, of its shape, dense, and in other buffers than those of
   * the parameters. They are read, and stay as they are.
   */
  readonly gradients: readonly Tensor[];
  /** Parameters with other settings; a parameter is in one group at most. Default: none. */
  readonly groups?: readonly OptimizerGroupOptions[];
  /** Default: gradients are not clipped, and their norm is not computed. */
  readonly clip?: ClipOptions;
  /**
   * Whether an update is left out, and not counted, if the norm of its gradients is not finite. The
   * norm is then measured without `clip`, too. Default false, as in PyTorch.
   */
  readonly skipNotFinite?: boolean;
  /** A factor of all learning rates by the number of updates. Default: always 1. */
  readonly schedule?: Schedule;
  /**
   * Batches of an update, from 1 up: each gradient counts 1 / accumulationSteps times. Call
   * `accumulate` for all batches of an update but the last one, and `encode` for that. Default 1.
   */
  readonly accumulationSteps?: number;
  /** Name of the optimiser's GPU objects in errors and captures. Default `"optimizer"`. */
  readonly label?: string;
}

export const ADAMW_OPTIONS: OptionNames<AdamWOptions> = {
  lr: "number",
  betas: "any",
  eps: "number",
  weightDecay: "number",
  amsgrad: "boolean",
};

/** The names of all settings. */
const SETTINGS: OptionNames<OptimizerOptions> = {
  ...ADAMW_OPTIONS,
  momentum: "number",
  dampening: "number",
  nesterov: "boolean",
  nsSteps: "number",
  nsCoefficients: "any",
  adjustLr: "string",
  adamw: "any",
};

export const GROUP_OPTIONS: OptionNames<OptimizerGroupOptions> = {
  ...SETTINGS,
  parameters: "any",
  kind: "string",
};

/** The names of all members of a problem. */
export const OPTIMIZER_PROBLEM: OptionNames<OptimizerProblem> = {
  ...SETTINGS,
  kind: "string",
  parameters: "any",
  gradients: "any",
  groups: "any",
  clip: "any",
  skipNotFinite: "boolean",
  schedule: "any",
  accumulationSteps: "number",
  label: "string",
};

const ADAM = { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, amsgrad: false } as const;

/** The settings that each algorithm has, with their defaults. */
export const DEFAULTS: Readonly<Record<OptimizerKind, OptimizerOptions>> = {
  SGD: { lr: 1e-3, momentum: 0, dampening: 0, nesterov: false, weightDecay: 0 },
  Adam: ADAM,
  AdamW: { ...ADAM, weightDecay: 0.01 },
  Lion: { lr: 1e-4, betas: [0.9, 0.99], weightDecay: 0 },
  Muon: {
    lr: 1e-3,
    momentum: 0.95,
    nesterov: true,
    weightDecay: 0.1,
    eps: 1e-7,
    nsSteps: 5,
    nsCoefficients: [3.4445, -4.775, 2.0315],
    adjustLr: "original",
    adamw: {},
  },
};

/** All names that are settings of some algorithm. */
export const SETTING_NAMES = Object.keys(SETTINGS) as readonly (keyof OptimizerOptions)[];
