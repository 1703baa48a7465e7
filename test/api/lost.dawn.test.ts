// A device that is lost while something waits for it: each call rejects once, with "device-lost",
// and Node, which exits on a rejection that nobody handles, goes on.

import { describe, expect, it } from "vitest";
import {
  attention,
  createBlockMask,
  createGpuTimer,
  FoveaError,
  multiplicativeAttention,
  planAttention,
  prewarm,
  slidingWindow,
  softmax,
  tensor,
} from "../../src/index.ts";
import { newDevice } from "../support/device.ts";

const CALLS: Readonly<Record<string, (device: GPUDevice) => Promise<unknown>>> = {
  attention: async (device) => {
    const q = tensor(device, [1, 1, 4, 4]);
    return (await attention(q, q, q, { kvLengths: [3] })).output.read();
  },
  softmax: (device) => softmax(tensor(device, [4])),
  planAttention: (device) =>
    planAttention(device, {
      q: { shape: [1, 1, 4, 4] },
      k: { shape: [1, 1, 4, 4] },
      v: { shape: [1, 1, 4, 4] },
      lse: true,
    }),
  prewarm: (device) =>
    prewarm(device, [
      { q: { shape: [1, 1, 4, 4] }, k: { shape: [1, 1, 4, 4] }, v: { shape: [1, 1, 4, 4] } },
    ]),
  multiplicativeAttention: (device) => {
    const q = tensor(device, [1, 2, 4, 4]);
    return multiplicativeAttention(q, q, q, tensor(device, [2, 4, 4]));
  },
  createBlockMask: (device) =>
    createBlockMask(device, slidingWindow(2, 2), { seqQ: 64, seqKv: 64 }),
  read: (device) => tensor(device, [4]).read(),
  write: (device) => tensor(device, [8], { dtype: "u8" }).slice(0, 1, 3).write([1, 2]),
  time: (device) => createGpuTimer(device).time(() => {}),
};

describe("a loss in flight", () => {
  it.each(Object.keys(CALLS))("of %s is one rejection, whenever it comes", async (name) => {
    const unhandled: unknown[] = [];
    const listen = (reason: unknown) => unhandled.push(reason);
    process.on("unhandledRejection", listen);
    try {
      for (const turns of [0, 1, 3, 10, 40]) {
        const device = await newDevice();
        const call = CALLS[name](device).then(
          () => undefined,
          (error: unknown) => error,
        );
        for (let turn = 0; turn < turns; turn++)
          await (turn % 2 ? new Promise(setImmediate) : Promise.resolve());
        device.destroy();
        const error = await call;
        if (error === undefined) continue; // it was done before
        expect(error).toBeInstanceOf(FoveaError);
        expect((error as FoveaError).code, (error as FoveaError).message).toBe("device-lost");
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
      expect(unhandled).toEqual([]);
    } finally {
      process.off("unhandledRejection", listen);
    }
  });
});
