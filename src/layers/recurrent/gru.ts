// GRU: the plan, and the one-liner on top of it.

import { type OptionNames, readOptions } from "../../given.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { optionsBeside } from "../../plan/operation.ts";
import { prepareRecurrent, runRecurrent } from "./forward.ts";
import type { GruBindings, GruOptions, GruResult } from "./lstm.ts";
import type { RecurrentPlan } from "./plan.ts";
import { GRU_PROBLEM, type GruProblem, type RecurrentWeights } from "./problem.ts";

/** A compiled GRU. */
export type GruPlan = RecurrentPlan<GruBindings>;

/**
 * Compiles a network of GRU layers, in one direction or both, with PyTorch's weights. The reset
 * gate comes after the matrix:
 *
 * ```
 * r, z = sigmoid(W_r x_t + b_r + U_r h_t-1 + d_r), ...
 * n = tanh(W_n x_t + b_n + r (U_n h_t-1 + d_n))        h_t = (1 - z) n + z h_t-1
 * ```
 *
 * W and b are `weight_ih` and `bias_ih`, U and d are `weight_hh` and `bias_hh`. All else is as
 * {@link planLstm} says, with 3 H numbers a token. Source: arXiv 1406.1078, as torch.nn.GRU has it.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const plan = await planGru(device, { x: { shape: [8, 100, 64] }, weights });
 * plan.encode(pass, { x, output, hN });
 */
export async function planGru(device: GPUDevice, problem: GruProblem): Promise<GruPlan> {
  const taken = await readOptions("gru", problem, GRU_PROBLEM);
  const { plan, allocated } = await prepareRecurrent<GruBindings>(device, "gru", taken);
  await allocated;
  return plan;
}

/** The names of the options. */
const GRU_OPTIONS: OptionNames<GruOptions> = optionsBeside(GRU_PROBLEM, "x", "weights");

/**
 * A network of GRU layers on the GPU. See {@link planGru} for the formula and the rules.
 *
 * Resolves once the GPU has accepted the work; `output.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x [B, T, inputs], f32, f16 or bf16
 * @param weights those of PyTorch's `nn.GRU`, by their names; they tell layers and directions
 *
 * @example
 * const { output, hN } = await gru(x, weights, { lengths: [7, 3, 5] });
 */
export async function gru(
  x: Tensor,
  weights: RecurrentWeights,
  asked: GruOptions = {},
): Promise<GruResult> {
  const options = await readOptions("gru", asked, GRU_OPTIONS);
  return runRecurrent<GruResult>("gru", { x, weights }, options);
}
