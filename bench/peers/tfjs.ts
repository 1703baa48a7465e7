// TensorFlow.js on its WebGPU backend.

import type * as tf from "@tensorflow/tfjs-core";
import { joined } from "./arrays.ts";
import type { Contestant, Input } from "./contest.ts";

export type Tf = typeof tf;

let opened: Promise<Tf> | undefined;

/**
 * The library, loaded once, with its gradients, its WebGPU backend and the device that it asks for
 * itself.
 */
export function openTfjs(): Promise<Tf> {
  opened ??= (async () => {
    const core = await import("@tensorflow/tfjs-core");
    await import("@tensorflow/tfjs-core/dist/register_all_gradients");
    await import("@tensorflow/tfjs-backend-webgpu");
    core.env().set("WEBGPU_CPU_FORWARD", false); // small operands go to the GPU, too
    await core.setBackend("webgpu");
    await core.ready();
    return core;
  })();
  return opened;
}

/** What tfjs keeps behind its backend interface. */
interface WebgpuBackend {
  readonly device: GPUDevice;
  /**
   * The encoder of the commands that are not submitted yet. It is null if there are none, and then
   * nothing can be submitted.
   */
  readonly commandEncoder: GPUCommandEncoder | null;
  /** Ends the pass that may still be open, which has to be closed before a submission. */
  endComputePassEncoder(): void;
  submitQueue(): void;
}

/** Submits what is recorded, and settles when the GPU is done with it. */
export async function submitted(core: Tf): Promise<void> {
  const backend = core.backend() as unknown as WebgpuBackend;
  backend.endComputePassEncoder();
  if (backend.commandEncoder) backend.submitQueue();
  await backend.device.queue.onSubmittedWorkDone();
}

/**
 * Runs a function of tensors by tfjs, whose result is a tensor or several. Memory of its
 * intermediate results is freed after each run.
 */
export async function tfjsContestant(
  inputs: readonly Input[],
  compute: (core: Tf, ...tensors: tf.Tensor[]) => tf.Tensor | tf.Tensor[],
): Promise<Contestant> {
  const core = await openTfjs();
  const tensors = inputs.map(({ data, shape }) => core.tensor(data, [...shape]));
  const once = () => [core.tidy(() => compute(core, ...tensors))].flat();
  return {
    kernel: `tfjs ${core.version_core}`,
    workspaceBytes: Number.NaN,
    async run() {
      const results = once();
      await submitted(core);
      for (const result of results) result.dispose();
    },
    async read() {
      const results = once();
      const values = await Promise.all(results.map((result) => result.data()));
      for (const result of results) result.dispose();
      return joined(values);
    },
    destroy: () => {
      for (const tensor of tensors) tensor.dispose();
    },
  };
}
