// Optimisers: makes a plan that updates parameters by their gradients, and owns the state for it.

import { check, FoveaError, show } from "../../errors.ts";
import { readOptions } from "../../given.ts";
import { checkDevice, settle } from "../../gpu/buffers.ts";
import { tensor } from "../../gpu/make_tensor.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import { GROUP } from "../../kernels/training/optimizer.ts";
import { checkNames } from "../../options.ts";
import type { Caller } from "../../plan/operation.ts";
import { buildSteps } from "./build.ts";
import { OPTIMIZER_PROBLEM, type OptimizerProblem } from "./options.ts";
import { OptimizerPlan } from "./plan.ts";
import { groupValues, resolveOptimizer } from "./resolve.ts";
import { resolveSchedule } from "./schedule.ts";
import { prepareSteps } from "./sequence.ts";

/**
 * Makes an optimiser of parameters and their gradients: SGD, Adam, AdamW (as torch.optim has them),
 * Lion (arXiv:2302.06675) or Muon (as torch.optim.Muon, in f32), with groups, clipping, schedules
 * and accumulation. Compiles its kernels and allocates its state, which begins at 0.
 *
 * A gradient that is not finite gets into its parameter and its state, as in PyTorch; with `clip`
 * into all of them. `finite` of the plan tells. With `skipNotFinite` such an update is left out.
 *
 * Rejects with FoveaError, and then has allocated nothing.
 *
 * @example
 * const optimizer = await planOptimizer(device, {
 *   kind: "AdamW",
 *   parameters: [weight, bias],
 *   gradients: [dWeight, dBias],
 *   lr: 3e-4,
 *   groups: [{ parameters: [1], weightDecay: 0 }],
 *   clip: { maxNorm: 1 },
 *   schedule: { kind: "warmup_cosine", warmupSteps: 100, totalSteps: 10_000 },
 * });
 * optimizer.encode(pass); // after the commands that compute the gradients
 */
export async function planOptimizer(
  device: GPUDevice,
  problem: OptimizerProblem,
): Promise<OptimizerPlan> {
  const taken = (await readOptions("optimizer", problem, OPTIMIZER_PROBLEM)) as OptimizerProblem;
  const { label = "optimizer", accumulationSteps = 1 } = taken;
  const caller = { label, device };
  checkDevice(device);
  const { groups, placed } = resolveOptimizer(taken, caller);
  const { skipNotFinite = false } = taken;
  const maxNorm =
    checkedNorm(label, taken.clip) ?? (skipNotFinite ? Number.POSITIVE_INFINITY : undefined);
  const schedule = resolveSchedule(label, taken.schedule);
  check(
    Number.isInteger(accumulationSteps) && accumulationSteps >= 1 && accumulationSteps < 2 ** 24,
    "argument",
    () => `${label}: accumulationSteps must be a whole number from 1 up, got ${accumulationSteps}.`,
  );
  const owned: Tensor[] = [];
  const plans: { destroy(): void }[] = [];
  const destroyPlans = () => {
    for (const plan of plans) plan.destroy();
  };
  try {
    const small = smallTensors(
      caller,
      groups.map(({ settings }) => settings.lr ?? 0),
      owned,
    );
    const words = new ArrayBuffer(GROUP.bytes * groups.length);
    for (const [index, group] of groups.entries())
      GROUP.pack(groupValues(group), words, GROUP.bytes * index);
    const groupTensor = tensor(device, [words.byteLength / 4], {
      dtype: "u32",
      data: new Uint32Array(words),
      label: `${label} groups`,
    });
    owned.push(groupTensor);
    const built = await buildSteps(caller, {
      groups,
      placed,
      small: { ...small, groups: groupTensor },
      maxNorm,
      skips: skipNotFinite,
      schedule,
      accumulationSteps,
      owned,
      plans,
    });
    await settle(placed.flatMap((one) => [one.parameter.allocated, one.gradient.allocated]));
    const { recorded, params } = await prepareSteps(caller, [built.update, built.accumulate]);
    const [update, accumulate] = recorded;
    const { step, lr, rates, clipping } = small;
    const clipped = maxNorm !== undefined;
    return OptimizerPlan.make(
      {
        device,
        label,
        kernel: [...new Set(placed.map(({ group }) => groups[group].kind))].sort().join(", "),
        placed,
        owned,
        params,
        update,
        accumulate: accumulationSteps > 1 ? accumulate : undefined,
        destroyPlans,
      },
      {
        step,
        lr,
        rates,
        norm: clipped ? clipping.view({ shape: [1] }) : undefined,
        finite: clipped ? clipping.view({ shape: [1], offset: 2 }) : undefined,
        state: built.state,
      },
    );
  } catch (error) {
    destroyPlans();
    for (const one of owned) one.destroy();
    throw error;
  }
}

/** The largest norm of a clip, if there is one. */
function checkedNorm(label: string, clip: unknown): number | undefined {
  if (clip === undefined) return undefined;
  if (typeof clip !== "object" || clip === null)
    throw new FoveaError("argument", `${label}: clip must be { maxNorm }, got ${show(clip)}.`);
  checkNames(`${label}: clip`, clip, { maxNorm: "number" });
  const { maxNorm } = clip as { readonly maxNorm?: number };
  check(
    maxNorm !== undefined && maxNorm >= 0,
    "argument",
    () => `${label}: clip.maxNorm must be a number from 0 up, or Infinity, got ${show(maxNorm)}.`,
  );
  return maxNorm;
}

/** The tensors that are there once for all parameters. */
function smallTensors({ device, label }: Caller, lr: readonly number[], owned: Tensor[]) {
  const own = <T extends Tensor>(made: T): T => {
    owned.push(made);
    return made;
  };
  return {
    step: own(tensor(device, [1], { dtype: "u32", label: `${label} step` })),
    lr: own(tensor(device, [lr.length], { data: lr, label: `${label} lr` })),
    rates: own(tensor(device, [lr.length], { data: lr, label: `${label} rates` })),
    // The norm, the factor of all gradients, and whether the norm is finite.
    clipping: own(tensor(device, [3], { data: [0, 1, 1], label: `${label} clipping` })),
  };
}
