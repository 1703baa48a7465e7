// Fovea in a contest: its tensors, and what it records into a pass.

import { type Tensor, tensor } from "../../src/index.ts";
import { joined } from "./arrays.ts";
import type { Contestant, Input } from "./contest.ts";

/** What a contest needs of a plan, of whatever operation. */
export interface Recorded {
  readonly kernel: string;
  readonly workspaceBytes: number;
  readonly dispatchCount?: number;
  encode(pass: GPUComputePassEncoder): void;
}

export const upload = (device: GPUDevice, inputs: readonly Input[]): Tensor[] =>
  inputs.map(({ data, shape }) => tensor(device, shape, { data }));

/**
 * @param output The tensors of the result, whose elements follow each other
 * @param made What is destroyed at the end, beside the output
 */
export function foveaContestant(
  device: GPUDevice,
  recorded: Recorded,
  output: Tensor | readonly Tensor[],
  made: readonly { destroy(): void }[],
): Contestant {
  const outputs = [output].flat();
  return {
    kernel: recorded.kernel,
    workspaceBytes: recorded.workspaceBytes,
    ...(recorded.dispatchCount !== undefined && { dispatches: recorded.dispatchCount }),
    run() {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      recorded.encode(pass);
      pass.end();
      device.queue.submit([encoder.finish()]);
      return device.queue.onSubmittedWorkDone() as Promise<unknown>;
    },
    read: async () => joined(await Promise.all(outputs.map((one) => one.read()))),
    destroy: () => {
      for (const one of [...made, ...outputs]) one.destroy();
    },
  };
}
