// How long the GPU takes: by its own clock where the device has timestamp queries, by the queue's where it has not.

import { guarded, mappedBytes, USAGE } from "./buffers.ts";

/** Where a time comes from. Wall-clock times include the submission and the browser's notice that the GPU is done. */
export type TimingSource = "timestamp-query" | "wall-clock";

/**
 * Times work on the GPU. Browsers round timestamps (to 0.1 ms in Chrome without its developer flag), so repeat short
 * work inside one pass.
 */
export interface GpuTimer {
  readonly source: TimingSource;
  /** Milliseconds that one submission of the compute pass takes on the GPU. Rejects with a FoveaError if it fails. */
  time(encode: (pass: GPUComputePassEncoder) => void): Promise<number>;
  destroy(): void;
}

/** Makes a timer for a device; destroy it when done. One `time` at a time. */
export function createGpuTimer(device: GPUDevice): GpuTimer {
  return device.features.has("timestamp-query") ? timestampTimer(device) : wallClockTimer(device);
}

function timestampTimer(device: GPUDevice): GpuTimer {
  const label = "fovea timer";
  const querySet = device.createQuerySet({ label, type: "timestamp", count: 2 });
  const resolved = device.createBuffer({ label, size: 16, usage: USAGE.QUERY_RESOLVE | USAGE.COPY_SRC });
  const staging = device.createBuffer({ label, size: 16, usage: USAGE.MAP_READ | USAGE.COPY_DST });
  return {
    source: "timestamp-query",
    async time(encode) {
      await submit(device, encode, { querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 }, (encoder) => {
        encoder.resolveQuerySet(querySet, 0, 2, resolved, 0);
        encoder.copyBufferToBuffer(resolved, 0, staging, 0, 16);
      });
      const [begin, end] = new BigUint64Array(await mappedBytes(device, staging, "time"));
      return Number(end - begin) / 1e6;
    },
    destroy() {
      querySet.destroy();
      resolved.destroy();
      staging.destroy();
    },
  };
}

function wallClockTimer(device: GPUDevice): GpuTimer {
  return {
    source: "wall-clock",
    async time(encode) {
      await device.queue.onSubmittedWorkDone();
      const begin = performance.now();
      await Promise.all([submit(device, encode), device.queue.onSubmittedWorkDone()]);
      return performance.now() - begin;
    },
    destroy() {},
  };
}

function submit(
  device: GPUDevice,
  encode: (pass: GPUComputePassEncoder) => void,
  timestampWrites?: GPUComputePassTimestampWrites,
  afterwards?: (encoder: GPUCommandEncoder) => void,
): Promise<void> {
  return guarded(device, "time", () => {
    const encoder = device.createCommandEncoder({ label: "fovea timer" });
    const pass = encoder.beginComputePass({ label: "fovea timer", ...(timestampWrites && { timestampWrites }) });
    encode(pass);
    pass.end();
    afterwards?.(encoder);
    device.queue.submit([encoder.finish()]);
  }).done;
}
