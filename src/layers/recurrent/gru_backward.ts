// The gradients of GRU: the plan, and the one-liner on top of it.

import { type OptionNames, readOptions } from "../../given.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { optionsBeside } from "../../plan/operation.ts";
import { prepareRecurrentBackward, runRecurrentBackward } from "./backward.ts";
import {
  GRU_BACKWARD_PROBLEM,
  type GruBackwardBindings,
  type GruBackwardProblem,
} from "./backward_problem.ts";
import type { GruBackwardOptions, GruGradients } from "./lstm_backward.ts";
import type { RecurrentPlan } from "./plan.ts";
import type { RecurrentWeights } from "./problem.ts";

/** Compiled gradients of a GRU. */
export type GruBackwardPlan = RecurrentPlan<GruBackwardBindings>;

/**
 * Compiles the gradients of {@link planGru}, those of L = sum(output * dOutput) + sum(hN * dHN),
 * from the gates and states that the forward run kept:
 *
 * ```
 * dh_t = dOutput_t + dh_t+1 z_t+1 + U^T du_t+1
 * dn = dh (1 - z) (1 - n^2)    dz = dh (h_t-1 - n) z (1 - z)    dr = dn u_n r (1 - r)
 * da = dr, dz, dn        du = dr, dz, dn r
 * dX = da W    dW = da^T x    dU = du^T h_t-1    db = sum of da    dd = sum of du
 * ```
 *
 * u_n is U_n h_t-1 + d_n, and da and du are the gradients of the two sums that make the gates. All
 * else is as {@link planLstmBackward} says, with 6 H numbers a token.
 *
 * Rejects with FoveaError, as {@link planAttention} does.
 *
 * @example
 * const plan = await planGruBackward(device, { x, weights, dOutput: { shape: [8, 100, 128] } });
 * plan.encode(pass, { gates, states, dOutput, dX, dH0, parameters });
 */
export async function planGruBackward(
  device: GPUDevice,
  problem: GruBackwardProblem,
): Promise<GruBackwardPlan> {
  const taken = await readOptions("gruBackward", problem, GRU_BACKWARD_PROBLEM);
  const { plan, allocated } = await prepareRecurrentBackward<GruBackwardBindings>(
    device,
    "gru",
    taken,
  );
  await allocated;
  return plan;
}

/** The names of the options. */
const GRU_BACKWARD_OPTIONS: OptionNames<GruBackwardOptions> = optionsBeside(
  GRU_BACKWARD_PROBLEM,
  "x",
  "weights",
);

/**
 * The gradients of a GRU on the GPU. See {@link planGruBackward} for the formulas and the rules.
 *
 * Resolves once the GPU has accepted the work; `dX.read()` waits for the result itself.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @param x as for {@link gru}
 * @param weights as for {@link gru}
 *
 * @example
 * const { output, gates, states } = await gru(x, weights, { keep: true });
 * if (!gates || !states) throw new Error("nothing was kept");
 * const { dX, parameters } = await gruBackward(x, weights, { gates, states, dOutput });
 */
export async function gruBackward(
  x: Tensor,
  weights: RecurrentWeights,
  asked: GruBackwardOptions,
): Promise<GruGradients> {
  const options = await readOptions("gruBackward", asked, GRU_BACKWARD_OPTIONS);
  return runRecurrentBackward<GruGradients>("gru", { x, weights }, options);
}
