// The choice of the next tokens from their logits: the plan.

import { check } from "../../errors.ts";
import type { OptionNames } from "../../given.ts";
import { resolveSpec, type Tensor } from "../../gpu/tensor.ts";
import { PROBABILITY_LANES } from "../../kernels/models/sampling.ts";
import { drawStep } from "../../operations/draw_step.ts";
import { type Caller, operation, type Stage } from "../../plan/operation.ts";
import type { Plan } from "../../plan/plan.ts";
import {
  bindingBase,
  checkedSpec,
  expectApart,
  expectShape,
  type ResolvedSpec,
} from "../../plan/specs.ts";
import type { PlanTensors } from "../../plan/tensors.ts";
import type { Dtype, TensorSpec } from "../../types.ts";
import { columnsAt, logitsSpec, passNumbers, passStage, rowsAt, sharesOf } from "./logits.ts";
import {
  type ResolvedSettings,
  resolveSettings,
  SAMPLING_SETTINGS,
  type SamplingSettings,
  settingNumbers,
} from "./options.ts";

/**
 * The choice that a plan is made for. Shapes, strides and settings are fixed by the plan; memory is
 * given at encode.
 */
export interface SamplingProblem extends SamplingSettings {
  /** f32 [B, V], V below 2^19, at any strides. A tensor, or what it will look like. */
  readonly logits: TensorSpec;
  /** i32 [B]: the tokens that are chosen. Default: dense. */
  readonly token?: TensorSpec;
  /**
   * f32 [B]: the logarithm of the probability of each token, by the softmax of the logits as they
   * came, before any setting. Default: dense.
   */
  readonly logprob?: TensorSpec;
  /**
   * f32 [B, V]: the probabilities after all settings. They are 0 where a token was removed and
   * 2^-126 or more elsewhere, but for logits that are 745 and more below the largest after the
   * temperature. Default: none are written.
   */
  readonly probabilities?: TensorSpec;
  /**
   * u32 [B, ceil(V / 32)]: tokens that were said, token t as bit t % 32 of word t / 32. A run reads
   * it for the penalty and then sets the bits of the tokens that it chooses. Default: none.
   */
  readonly seen?: TensorSpec;
  /**
   * The number of the draw, with which a plan that is encoded again draws anew: a whole number from
   * 0 up to 2^32 - 1, or a u32 or i32 tensor of one element, [] or [1], which stays on the GPU.
   * Default 0.
   */
  readonly step?: number | TensorSpec;
  /** Name of the plan's GPU objects in errors and captures. Default `"sampling"`. */
  readonly label?: string;
}

/** The names of all members of a problem. */
const SAMPLING_PROBLEM: OptionNames<SamplingProblem> = {
  ...SAMPLING_SETTINGS,
  logits: "any",
  token: "any",
  logprob: "any",
  probabilities: "any",
  seen: "any",
  step: "any",
  label: "string",
};

/**
 * Memory for one run of a plan: tensors that look as the plan was told. The tensors that it was
 * made with are the default.
 */
export interface SamplingBindings {
  readonly logits?: Tensor;
  readonly token?: Tensor;
  readonly logprob?: Tensor;
  /** Bound only if the plan was made with a tensor for it, as are the members that follow. */
  readonly probabilities?: Tensor;
  readonly seen?: Tensor;
  readonly step?: Tensor;
}

/** A compiled choice of tokens. */
export type SamplingPlan = Plan<SamplingBindings>;

/**
 * Compiles the choice of a token for each entry of a batch: repetition penalty, temperature, top-k,
 * top-p and min-p, in this order ({@link SamplingSettings}), and then the first token, in the order
 * of ids, at which the sum of the probabilities is above u. u is the first word of threefry(key =
 * seed, counter = [entry, step]) over 2^32 (Salmon et al., Parallel Random Numbers: As Easy as 1,
 * 2, 3, SC 2011), so that the same seed and step draw the same token again, and entries draw
 * independently. Weights of tokens are added as whole numbers in units of 2^-45 of the largest.
 *
 * Logits may be -Infinity, for tokens that are never chosen; if all are, the token is 0 and its
 * logprob NaN. +Infinity counts as the largest f32. A NaN stands before all numbers, as in
 * `argmax`, and the logprob of its entry is NaN, so that it doesn't go unseen.
 *
 * A run is two dispatches, three with probabilities, and sorts nothing. Lengths, strides and
 * settings compile nothing, but for whether there is a penalty and whether the temperature is 0.
 *
 * Rejects with FoveaError, as `planAttention` does; for a setting out of its range, for a penalty
 * without `seen`.
 *
 * @example
 * const step = tensor(device, [1], { dtype: "u32" });
 * const logits = { shape: [1, 32000] };
 * const plan = await planSampling(device, { logits, temperature: 0.8, topP: 0.95, seed: 7, step });
 * plan.encode(pass, { logits: lastLogits, token, logprob });
 */
export function planSampling(device: GPUDevice, problem: SamplingProblem): Promise<SamplingPlan> {
  return SAMPLING.plan(device, problem);
}

interface ResolvedSampling {
  readonly logits: ResolvedSpec;
  readonly token: ResolvedSpec;
  readonly logprob: ResolvedSpec;
  readonly probabilities: ResolvedSpec | undefined;
  readonly seen: ResolvedSpec | undefined;
  readonly step: ResolvedSpec | number;
  readonly settings: ResolvedSettings;
}

interface SamplingResults {
  readonly token: Tensor<"i32">;
  readonly logprob: Tensor<"f32">;
}

const SAMPLING = operation<SamplingProblem, SamplingBindings, ResolvedSampling, SamplingResults>({
  name: "sampling",
  problem: SAMPLING_PROBLEM,
  resolve,
  tensors,
  kernel,
  results: ({ token, logprob }) => ({ token, logprob }),
});

function resolve(problem: SamplingProblem, { label }: Caller): ResolvedSampling {
  const logits = logitsSpec(label, problem.logits);
  const [entries, width] = logits.shape;
  const settings = resolveSettings(label, problem);
  const written = (name: "token" | "logprob" | "probabilities" | "seen", shape: number[]) => {
    const dtype: Dtype = name === "token" ? "i32" : name === "seen" ? "u32" : "f32";
    const given = problem[name];
    if (given === undefined) return resolveSpec(name, { shape, dtype });
    const spec = checkedSpec(label, name, given, [dtype]);
    expectShape(label, name, spec, shape);
    expectApart(label, name, spec);
    return spec;
  };
  const seen = problem.seen && written("seen", [entries, Math.ceil(width / 32)]);
  check(
    settings.repetitionPenalty === 1 || seen !== undefined,
    "argument",
    () =>
      `${label}: repetitionPenalty ${settings.repetitionPenalty} needs seen, the tokens that were said.`,
  );
  return {
    logits,
    token: written("token", [entries]),
    logprob: written("logprob", [entries]),
    probabilities: problem.probabilities && written("probabilities", [entries, width]),
    seen,
    step: drawStep(label, problem.step ?? 0),
    settings,
  };
}

function tensors(
  { add, own }: PlanTensors,
  resolved: ResolvedSampling,
  problem: SamplingProblem,
  { device }: Caller,
): void {
  const { logits, token, logprob, probabilities, seen, step, settings } = resolved;
  add("token", token, problem.token, true);
  add("logprob", logprob, problem.logprob, true);
  if (probabilities) add("probabilities", probabilities, problem.probabilities, true);
  if (seen) add("seen", seen, problem.seen, true);
  add("logits", logits, problem.logits);
  if (typeof step !== "number") add("step", step, problem.step);
  const [entries] = logits.shape;
  const { chunks, width4 } = sharesOf(device, logits);
  // The plan's names: the logits left are its workspace, what chunks find its blocks, what entries
  // have found its tables, and a step that is a number its positions.
  if (settings.temperature > 0) own("workspace", [entries, width4, 4], { dtype: "u32" }, true);
  own("blocks", [entries, chunks, 4], { dtype: "u32" }, true);
  own("tables", [entries, 4], { dtype: "u32" }, true);
  if (typeof step === "number") own("positions", [1], { dtype: "u32", data: [step] });
}

function kernel(resolved: ResolvedSampling, caller: Caller): Stage[] {
  const { logits, token, logprob, probabilities, seen, step, settings } = resolved;
  const { device } = caller;
  const [entries, width] = logits.shape;
  const shares = sharesOf(device, logits);
  const { access } = rowsAt(device, "logits", logits);
  const { lanes } = shares;
  const greedy = settings.temperature === 0;
  const written = probabilities && rowsAt(device, "probabilities", probabilities);
  const values = {
    ...passNumbers(caller, logits, shares),
    ...settingNumbers(settings, width),
    ...columnsAt(device, "tokens", token),
    ...columnsAt(device, "logprobs", logprob),
    ...(seen && columnsAt(device, "seen", seen)),
    ...written?.values,
    step_base: typeof step === "number" ? 0 : bindingBase(device, step),
  };
  const names = {
    tokens: "token",
    logprobs: "logprob",
    steps: typeof step === "number" ? "positions" : "step",
  };
  const penalised = settings.repetitionPenalty !== 1;
  const first = {
    kernel: "sampling_chunks",
    logits: access,
    penalised,
    left: !greedy,
    lanes,
  } as const;
  const choice = greedy ? "sampling_greedy" : "sampling_choose";
  const last = { kernel: choice, logits: access, seen: seen !== undefined, lanes } as const;
  const stages = [
    passStage(first, values, entries * shares.chunks, names),
    passStage(last, values, entries, names),
  ];
  if (!written) return stages;
  const after = {
    kernel: "sampling_probabilities",
    probabilities: written.access,
    chosen: greedy,
  } as const;
  const workgroups = Math.ceil((entries * shares.width4) / PROBABILITY_LANES);
  return [...stages, passStage(after, values, workgroups, names)];
}
