// The gradients of LSTM: the plan, and the one-liner on top of it.

import { type OptionNames, readOptions } from "../../given.ts";
import type { FloatTensor, Tensor } from "../../gpu/tensor.ts";
import { optionsBeside } from "../../plan/operation.ts";
import type { RunOptions } from "../../plan/run.ts";
import type { PerBatch } from "../../plan/specs.ts";
import { prepareRecurrentBackward, runRecurrentBackward } from "./backward.ts";
import {
  type GruGradient,
  LSTM_BACKWARD_PROBLEM,
  type LstmBackwardBindings,
  type LstmBackwardProblem,
  type LstmGradient,
} from "./backward_problem.ts";
import type { RecurrentPlan } from "./plan.ts";
import type { RecurrentWeights } from "./problem.ts";

/** Compiled gradients of an LSTM. */
export type LstmBackwardPlan = RecurrentPlan<LstmBackwardBindings>;

/**
 * Compiles the gradients of {@link planLstm}, those of L = sum(output * dOutput) + sum(hN * dHN) +
 * sum(cN * dCN), from the gates and states that the forward run kept:
 *
 * ```
 * dh_t = dOutput_t + U^T da_t+1        dc_t = dc_t+1 f_t+1 + dh_t o (1 - tanh(c_t)^2)
 * da = dc g i (1 - i), dc c_t-1 f (1 - f), dc i (1 - g^2), dh tanh(c_t) o (1 - o)
 * dX = da W        dW = da^T x        dU = da^T h_t-1        db = dd = sum of da
 * ```
 *
 * da is the gradient of the gates before their functions. A walk back over the steps leaves it in
 * memory, and matrix products over all steps make the others of it. Sums are f32, in one order, so
 * that the same inputs on the same device give the same bits; those over steps keep their digits as
 * {@link planProjectionBackward} says.
 *
 * What dOutput holds past an entry's length is not read, and dX is 0 there. The gradients of
 * `weight_ih` multiply rows of x past it by 0, so that these have to be finite. The plan owns
 * memory for 4 H numbers a token, and with several layers or two directions for the gradients
 * between them.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const plan = await planLstmBackward(device, { x, weights, dOutput: { shape: [8, 100, 128] } });
 * plan.encode(pass, { gates, states, dOutput, dX, dH0, dC0, parameters });
 */
export async function planLstmBackward(
  device: GPUDevice,
  problem: LstmBackwardProblem,
): Promise<LstmBackwardPlan> {
  const taken = await readOptions("lstmBackward", problem, LSTM_BACKWARD_PROBLEM);
  const { plan, allocated } = await prepareRecurrentBackward<LstmBackwardBindings>(
    device,
    "lstm",
    taken,
  );
  await allocated;
  return plan;
}

/** Options of {@link gruBackward}. */
export interface GruBackwardOptions extends RunOptions {
  /** The gates and states that the forward run kept (`keep: true`). */
  readonly gates: Tensor;
  /** Likewise. */
  readonly states: Tensor;
  /** f32, of the shape of the output. Default: zeros, but one gradient has to be given. */
  readonly dOutput?: Tensor;
  /** [L D, B, H] f32, the gradient of hN. Default: zeros. */
  readonly dHN?: Tensor;
  /** As in the forward run. */
  readonly lengths?: PerBatch;
  /** As in the forward run. Default true. */
  readonly batchFirst?: boolean;
  /** The gradients to compute. Default: all. */
  readonly gradients?: readonly GruGradient[];
  /** Where the gradient of x goes. Default: a new tensor, the caller's to destroy. */
  readonly dX?: Tensor;
  /** Where the gradient of the first state goes. Default: a new tensor. */
  readonly dH0?: Tensor;
  /** Where gradients of weights go, by their names. Default: a new tensor for each. */
  readonly parameters?: RecurrentWeights;
  /** Floating-point operations after which a dispatch is cut in two. Default 2^36. */
  readonly maxDispatchFlops?: number;
  /** Name in errors and captures. */
  readonly label?: string;
}

/** Options of {@link lstmBackward}. */
export interface LstmBackwardOptions extends Omit<GruBackwardOptions, "gradients"> {
  /** [L D, B, H] f32, the gradient of cN. Default: zeros. */
  readonly dCN?: Tensor;
  /** The gradients to compute. Default: all. */
  readonly gradients?: readonly LstmGradient[];
  /** Where the gradient of the first state of the cells goes. Default: a new tensor. */
  readonly dC0?: Tensor;
}

/** The gradients of a GRU: those that were asked for. */
export interface GruGradients {
  /** Of the shape and dtype of x. */
  readonly dX?: FloatTensor;
  /** [L D, B, H] */
  readonly dH0?: Tensor<"f32">;
  /** The gradient of each weight, under the weight's name. */
  readonly parameters?: RecurrentWeights<FloatTensor>;
}

/** The gradients of an LSTM: those that were asked for. */
export interface LstmGradients extends GruGradients {
  /** [L D, B, H] */
  readonly dC0?: Tensor<"f32">;
}

/** The names of the options. */
const LSTM_BACKWARD_OPTIONS: OptionNames<LstmBackwardOptions> = optionsBeside(
  LSTM_BACKWARD_PROBLEM,
  "x",
  "weights",
);

/**
 * The gradients of an LSTM on the GPU. See {@link planLstmBackward} for the formulas and the rules.
 *
 * Resolves once the GPU has accepted the work; `dX.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x as for {@link lstm}
 * @param weights as for {@link lstm}
 *
 * @example
 * const { output, gates, states } = await lstm(x, weights, { keep: true });
 * if (!gates || !states) throw new Error("nothing was kept");
 * const { dX, parameters } = await lstmBackward(x, weights, { gates, states, dOutput });
 */
export async function lstmBackward(
  x: Tensor,
  weights: RecurrentWeights,
  asked: LstmBackwardOptions,
): Promise<LstmGradients> {
  const options = await readOptions("lstmBackward", asked, LSTM_BACKWARD_OPTIONS);
  return runRecurrentBackward<LstmGradients>("lstm", { x, weights }, options);
}
