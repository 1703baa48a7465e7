// One run of a plan that is not kept.

import { check } from "../errors.ts";
import type { OptionNames } from "../given.ts";
import { guarded, settle } from "../gpu/buffers.ts";
import { tensor } from "../gpu/make_tensor.ts";
import { Tensor } from "../gpu/tensor.ts";
import type { Dtype } from "../types.ts";
import { checkTarget, type EncodeTarget } from "./target.ts";

/** The options of every one-line call. */
export interface RunOptions {
  /**
   * A compute pass or command encoder of the caller's to record into, in place of a submission by
   * Fovea, so that many calls go into one. It must stay open until the promise resolves: then the
   * commands are recorded, and the results have their values once the caller has submitted them.
   * Results are the caller's to destroy, after the submission. The other GPU memory of the call is
   * freed with the first result that it made, or is collected as garbage if all results went into
   * tensors of the caller's. If the promise rejects, the commands so far are of no use. Default:
   * the call submits.
   */
  readonly encoder?: EncodeTarget | undefined;
}

/** The names of the options. */
export const RUN_OPTIONS: OptionNames<RunOptions> = { encoder: "any" };

/**
 * Throws FoveaError("argument") if an argument of a one-line function isn't a tensor.
 *
 * @param optional Whether undefined is right, too
 */
export function checkTensors(
  label: string,
  tensors: Readonly<Record<string, unknown>>,
  optional: Readonly<Record<string, unknown>> = {},
): void {
  const given = Object.entries(optional).filter(([, one]) => one !== undefined);
  for (const [name, one] of [...Object.entries(tensors), ...given]) {
    check(
      one instanceof Tensor,
      "argument",
      () => `${label}: ${name} must be a Tensor; make one with tensor().`,
    );
  }
}

/** Allocates a result. */
export type MakeResult = (name: string, shape: readonly number[], dtype?: Dtype) => Tensor;

/** A plan of any operation. */
interface RunnablePlan<Results> {
  encode(target: EncodeTarget, results: Results): void;
  destroy(): void;
}

/**
 * Encodes a plan into results, submits it and destroys it; or records it into the caller's
 * `encoder`, and leaves the plan to the results. Resolves once the GPU has accepted the work;
 * rejects with FoveaError, and then has freed what `make` allocated.
 */
export async function runOnce<Results>(
  device: GPUDevice,
  label: string,
  { plan, allocated }: { plan: RunnablePlan<NoInfer<Results>>; allocated: Promise<unknown> },
  { encoder: target }: RunOptions,
  resultsOf: (make: MakeResult) => Results,
): Promise<Results> {
  const made: { destroy(): void }[] = [plan];
  const waits = [allocated];
  const make: MakeResult = (name, shape, dtype = "f32") => {
    const result = tensor(device, shape, { dtype, label: `${label} ${name}` });
    if (target) result.keep(plan);
    made.push(result);
    waits.push(result.allocated);
    return result;
  };
  try {
    if (target !== undefined) checkTarget(label, target);
    const results = resultsOf(make);
    const { done } = guarded(device, label, () => {
      const encoder = target ?? device.createCommandEncoder({ label });
      plan.encode(encoder, results);
      if (!target) device.queue.submit([(encoder as GPUCommandEncoder).finish()]);
    });
    await settle([...waits, done]);
    if (!target) plan.destroy();
    return results;
  } catch (error) {
    for (const one of made) one.destroy();
    throw error;
  }
}
