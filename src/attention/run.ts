// One run of a plan that is not kept.

import { check } from "../errors.ts";
import { guarded } from "../gpu/buffers.ts";
import { Tensor, tensor } from "../gpu/tensor.ts";
import type { Dtype } from "../types.ts";

/** Throws FoveaError("argument") for what a one-liner was given in place of a tensor. */
export function checkTensors(label: string, tensors: Readonly<Record<string, unknown>>): void {
  for (const [name, given] of Object.entries(tensors)) {
    check(given instanceof Tensor, "argument", () => `${label}: ${name} must be a Tensor; make one with tensor().`);
  }
}

/** Allocates a result. */
export type MakeResult = (name: string, shape: readonly number[], dtype?: Dtype) => Tensor;

/** A plan of any operation. */
interface RunnablePlan<Results> {
  encode(target: GPUCommandEncoder, results: Results): void;
  destroy(): void;
}

/**
 * Encodes a plan into results, submits it and destroys it. Resolves once the GPU has accepted the work; rejects with
 * FoveaError, and then has freed what `make` allocated.
 */
export async function runOnce<Results>(
  device: GPUDevice,
  label: string,
  { plan, allocated }: { plan: RunnablePlan<NoInfer<Results>>; allocated: Promise<unknown> },
  inputs: readonly Tensor[],
  resultsOf: (make: MakeResult) => Results,
): Promise<Results> {
  const made: Tensor[] = [];
  const make: MakeResult = (name, shape, dtype = "f32") => {
    const result = tensor(device, shape, { dtype, label: `${label} ${name}` });
    made.push(result);
    return result;
  };
  try {
    const results = resultsOf(make);
    const { done } = guarded(device, label, () => {
      const encoder = device.createCommandEncoder({ label });
      plan.encode(encoder, results);
      device.queue.submit([encoder.finish()]);
    });
    await Promise.all([allocated, done, ...[...inputs, ...made].map((used) => used.allocated)]);
    return results;
  } catch (error) {
    for (const result of made) result.destroy();
    throw error;
  } finally {
    plan.destroy();
  }
}
