// Work is cut into dispatches, so that none runs for long. How many there are depends on what the
// rows can see, and on the device.

import { expect, it } from "vitest";
import { type AttentionProblem, planAttention } from "../../src/index.ts";
import { failOnGpuErrors, overridden, testDevice } from "../support/device.ts";
import { idle } from "../support/idle.ts";

failOnGpuErrors();

const rows = { shape: [1, 2, 65536, 8] };
const LONG: AttentionProblem = { q: rows, k: rows, v: rows, causal: true, variant: "8x32" };

it.each([
  // 8192 tiles of 8 queries in each of 2 heads; a tile costs 8 * 32 operations for each key: 2^24
  // with all of them.
  ["all keys, on a software adapter", {}, true, 16384 / 2 ** (32 - 24)],
  ["all keys, on a GPU", {}, false, 16384 / 2 ** (36 - 24)],
  ["all keys, by the caller's bound", { maxDispatchFlops: 2 ** 34 }, true, 16384 / 2 ** (34 - 24)],
  [
    "a window",
    { window: [1024, 0] },
    true,
    Math.ceil(16384 / Math.floor(2 ** 32 / (256 * (1024 + 8)))),
  ],
  ["a window with sinks", { window: [8, 0], sinkTokens: 16 }, true, 1],
  ["a window that ends nowhere", { causal: false, window: [8, -1] }, true, 64],
] as const)("%s", async (_, options, software, expected) => {
  const real = await testDevice();
  expect(real.adapterInfo.isFallbackAdapter ?? true).toBe(true);
  const device = overridden(idle(real), { adapterInfo: { isFallbackAdapter: software } });
  const plan = await planAttention(device, { ...LONG, ...(options as Partial<AttentionProblem>) });
  expect(plan.dispatchCount).toBe(expected);
  plan.destroy();
});
