// LSTM: the plan, and the one-liner on top of it.

import { type OptionNames, readOptions } from "../../given.ts";
import type { FloatTensor, Tensor } from "../../gpu/tensor.ts";
import { optionsBeside } from "../../plan/operation.ts";
import type { RunOptions } from "../../plan/run.ts";
import type { PerBatch } from "../../plan/specs.ts";
import { prepareRecurrent, runRecurrent } from "./forward.ts";
import type { RecurrentPlan } from "./plan.ts";
import { LSTM_PROBLEM, type LstmProblem, type RecurrentWeights } from "./problem.ts";

/** Memory for one run of a plan: tensors that look as the plan was told. */
export interface GruBindings {
  readonly x?: Tensor;
  readonly weights?: RecurrentWeights;
  /** Bound only if the plan was made with one, as are the other members but the results. */
  readonly h0?: Tensor;
  readonly lengths?: Tensor;
  readonly output?: Tensor;
  readonly hN?: Tensor;
  readonly gates?: Tensor;
  readonly states?: Tensor;
}

/** The same for an LSTM. */
export interface LstmBindings extends GruBindings {
  readonly c0?: Tensor;
  readonly cN?: Tensor;
}

/** A compiled LSTM. */
export type LstmPlan = RecurrentPlan<LstmBindings>;

/**
 * Compiles a network of LSTM layers, in one direction or both, with PyTorch's weights:
 *
 * ```
 * i, f, o = sigmoid(W_i x_t + b_i + U_i h_t-1 + d_i), ...
 * g = tanh(W_g x_t + b_g + U_g h_t-1 + d_g)
 * c_t = f c_t-1 + i g        h_t = o tanh(c_t)
 * ```
 *
 * W and b are `weight_ih` and `bias_ih`, U and d are `weight_hh` and `bias_hh`. W x of all steps is
 * one matrix product; then a dispatch walks as many steps as it can. If H is more than 256, a
 * dispatch has one step, and many workgroups share its units. Sums and states are f32, in one
 * order, so that the same inputs on the same device give the same bits. Lengths and strides compile
 * nothing, but for a number of units that is not a multiple of 4.
 *
 * The plan owns memory for 4 H numbers a token, and the states of up to two layers, or for neither
 * if they are kept. Source: Long Short-Term Memory with forget gates, as torch.nn.LSTM has it.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const plan = await planLstm(device, { x: { shape: [8, 100, 64] }, weights });
 * plan.encode(pass, { x, output, hN, cN });
 */
export async function planLstm(device: GPUDevice, problem: LstmProblem): Promise<LstmPlan> {
  const taken = await readOptions("lstm", problem, LSTM_PROBLEM);
  const { plan, allocated } = await prepareRecurrent<LstmBindings>(device, "lstm", taken);
  await allocated;
  return plan;
}

/** Options of {@link gru}. */
export interface GruOptions extends RunOptions {
  /** [L D, B, H] f32, the state before the first step. Default: zeros. */
  readonly h0?: Tensor;
  /** How many steps each batch entry uses, from 0 to T. Default: all. */
  readonly lengths?: PerBatch;
  /** Whether x is [B, T, inputs], and output [B, T, D H]. Otherwise T comes first. Default true. */
  readonly batchFirst?: boolean;
  /** Whether the results have `gates` and `states`, which the gradients need. Default false. */
  readonly keep?: boolean;
  /** Where the output goes, f32, f16 or bf16. Default: a new tensor of f32, the caller's. */
  readonly output?: Tensor;
  /** Where the last state goes. Default: a new tensor. */
  readonly hN?: Tensor;
  /** Where the gates go. Default: a new tensor if they are kept. */
  readonly gates?: Tensor;
  /** Where the states go. Default: a new tensor if they are kept. */
  readonly states?: Tensor;
  /** Floating-point operations after which a dispatch is cut in two. Default 2^36. */
  readonly maxDispatchFlops?: number;
  /** Name in errors and captures. */
  readonly label?: string;
}

/** Options of {@link lstm}. */
export interface LstmOptions extends GruOptions {
  /** [L D, B, H] f32, the state of the cells before the first step. Default: zeros. */
  readonly c0?: Tensor;
  /** Where the last state of the cells goes. Default: a new tensor. */
  readonly cN?: Tensor;
}

/** What {@link gru} gives. */
export interface GruResult {
  /** [B, T, D H], the states of the last layer; 0 past the length of an entry. */
  readonly output: FloatTensor;
  /** [L D, B, H], the state of each layer and direction after its last step. */
  readonly hN: Tensor<"f32">;
  /** The gates of all steps, if they are kept. */
  readonly gates?: Tensor<"f32">;
  /** The states of all steps, if they are kept. */
  readonly states?: Tensor<"f32">;
}

/** What {@link lstm} gives. */
export interface LstmResult extends GruResult {
  /** [L D, B, H], the state of the cells after the last step. */
  readonly cN: Tensor<"f32">;
}

/** The names of the options. */
const LSTM_OPTIONS: OptionNames<LstmOptions> = optionsBeside(LSTM_PROBLEM, "x", "weights");

/**
 * A network of LSTM layers on the GPU. See {@link planLstm} for the formula and the rules.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x [B, T, inputs], f32, f16 or bf16
 * @param weights those of PyTorch's `nn.LSTM`, by their names; they tell layers and directions
 *
 * @example
 * const { output, hN, cN } = await lstm(x, { weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0 });
 */
export async function lstm(
  x: Tensor,
  weights: RecurrentWeights,
  asked: LstmOptions = {},
): Promise<LstmResult> {
  const options = await readOptions("lstm", asked, LSTM_OPTIONS);
  return runRecurrent<LstmResult>("lstm", { x, weights }, options);
}
