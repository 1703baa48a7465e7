// How long the GPU takes: by its own clock if the device has timestamp queries, else by the time
// until the queue is done.

import { check, show } from "../errors.ts";
import { checkDevice, guarded, settle, USAGE } from "./buffers.ts";
import { mappedBytes } from "./read.ts";

/**
 * Where a time comes from. Wall-clock times include the submission and the browser's notice that
 * the GPU is done.
 */
export type TimingSource = "timestamp-query" | "wall-clock";

/**
 * Times work on the GPU. Browsers round timestamps (to 0.1 ms in Chrome without its developer
 * flag), so repeat short work inside one pass.
 */
export interface GpuTimer {
  readonly source: TimingSource;
  /**
   * Milliseconds that one submission of the compute pass takes on the GPU. Rejects with a
   * FoveaError if it fails.
   */
  time(encode: (pass: GPUComputePassEncoder) => void): Promise<number>;
  destroy(): void;
  [Symbol.dispose](): void;
}

/**
 * Makes a timer for a device; destroy it when done. One `time` at a time.
 *
 * Throws FoveaError if the argument isn't a device, or is a lost one.
 */
export function createGpuTimer(device: GPUDevice): GpuTimer {
  checkDevice(device);
  const timer = device.features.has("timestamp-query")
    ? timestampTimer(device)
    : wallClockTimer(device);
  let state: "ready" | "busy" | "destroyed" = "ready";
  return {
    source: timer.source,
    async time(encode) {
      check(
        typeof encode === "function",
        "argument",
        () => `time: expected a function that records into a pass, got ${show(encode)}.`,
      );
      check(state !== "destroyed", "destroyed", () => "time: the timer was destroyed.");
      check(
        state !== "busy",
        "argument",
        () => "time: the last measurement is not done; await it first.",
      );
      state = "busy";
      try {
        return await timer.time(encode);
      } finally {
        if (state === "busy") state = "ready";
      }
    },
    destroy() {
      state = "destroyed";
      timer.destroy();
    },
    [Symbol.dispose]() {
      this.destroy();
    },
  };
}

type Timer = Omit<GpuTimer, typeof Symbol.dispose>;

function timestampTimer(device: GPUDevice): Timer {
  const label = "fovea timer";
  const { value, done: made } = guarded(device, label, () => ({
    querySet: device.createQuerySet({ label, type: "timestamp", count: 2 }),
    resolved: device.createBuffer({ label, size: 16, usage: USAGE.QUERY_RESOLVE | USAGE.COPY_SRC }),
    staging: device.createBuffer({ label, size: 16, usage: USAGE.MAP_READ | USAGE.COPY_DST }),
  }));
  const { querySet, resolved, staging } = value;
  return {
    source: "timestamp-query",
    async time(encode) {
      const done = submit(
        device,
        encode,
        { querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 },
        (encoder) => {
          encoder.resolveQuerySet(querySet, 0, 2, resolved, 0);
          encoder.copyBufferToBuffer(resolved, 0, staging, 0, 16);
        },
      );
      await settle([made, done]);
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

function wallClockTimer(device: GPUDevice): Timer {
  const idle = () => device.queue.onSubmittedWorkDone().catch(() => checkDevice(device));
  return {
    source: "wall-clock",
    async time(encode) {
      await idle();
      const begin = performance.now();
      await settle([submit(device, encode), idle()]);
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
    const pass = encoder.beginComputePass({
      label: "fovea timer",
      ...(timestampWrites && { timestampWrites }),
    });
    encode(pass);
    pass.end();
    afterwards?.(encoder);
    device.queue.submit([encoder.finish()]);
  }).done;
}
